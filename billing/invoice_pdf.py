"""An invoice as a PDF, in the language that is active. Room: billing.

Pure but for settings: the rows come in loaded. Letters that the embedded font does not have become question marks.
"""

import io
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import reportlab
from django.conf import settings
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from billing.console import wording
from billing.models import Invoice
from billing.money import rupiah

_FONT, _BOLD = "GatewayVera", "GatewayVera-Bold"
_FONTS = Path(reportlab.__file__).parent / "fonts"
_LINE = colors.HexColor("#9aa5b1")
_SOFT = colors.HexColor("#52606d")


def render(invoice: Invoice) -> bytes:
    """``invoice`` with its subscription, company, price and plan."""
    _register_fonts()
    target = io.BytesIO()
    title = _("Invoice %(number)s") % {"number": invoice.number}
    document = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=22 * mm,
        rightMargin=22 * mm,
        topMargin=22 * mm,
        bottomMargin=22 * mm,
        title=title,
        author=settings.GATEWAY_SELLER_NAME,
        lang=get_language() or "en",
    )
    document.build(
        [
            _parties(invoice),
            Spacer(1, 12 * mm),
            Paragraph(escape(_printable(title)), _style(18, _BOLD, leading=24)),
            Spacer(1, 4 * mm),
            _facts(invoice),
            Spacer(1, 8 * mm),
            _lines(invoice),
            Spacer(1, 8 * mm),
            Paragraph(escape(_printable(_closing(invoice))), _style(10)),
        ]
    )
    return target.getvalue()


def _parties(invoice: Invoice) -> Table:
    seller = [settings.GATEWAY_SELLER_NAME, *settings.GATEWAY_SELLER_ADDRESS.split("|")]
    if settings.GATEWAY_SELLER_TAX_ID:
        seller.append(_("Tax id (NPWP) %(id)s") % {"id": settings.GATEWAY_SELLER_TAX_ID})
    buyer = [invoice.subscription.company.name]
    cells = [[_party(_("From"), seller), _party(_("To"), buyer)]]
    return _table(cells, [83 * mm, 83 * mm], [("VALIGN", (0, 0), (-1, -1), "TOP")])


def _party(title: str, lines: list[str]) -> list[Paragraph]:
    shown = [line.strip() for line in lines if line.strip()]
    cells = [_cell(line, _FONT if place else _BOLD) for place, line in enumerate(shown)]
    return [Paragraph(escape(_printable(title)), _style(8, color=_SOFT)), *cells]


def _facts(invoice: Invoice) -> Table:
    rows = [
        (_("Date"), wording.day(invoice.created_at)),
        (_("Period"), f"{wording.day(invoice.period_start)} – {wording.day(invoice.period_end)}"),
        (_("State"), wording.invoice_state(invoice)),
    ]
    if invoice.paid_at is not None:
        rows.append((_("Paid"), wording.day(invoice.paid_at)))
    elif invoice.state == Invoice.State.OPEN:
        rows.append((_("Due"), wording.day(invoice.due_at)))
    cells = [[_cell(label, color=_SOFT), _cell(value)] for label, value in rows]
    return _table(cells, [35 * mm, 131 * mm], [])


def _lines(invoice: Invoice) -> Table:
    rate = wording.tax_rate(invoice.tax_rate)
    cells = [
        [_cell(_("Description"), _BOLD), _cell(_("Amount"), _BOLD, right=True)],
        [_cell(wording.invoice_text(invoice)), _cell(rupiah(invoice.net), right=True)],
        [_cell(_("Value added tax (PPN) %(rate)s %%") % {"rate": rate}), _cell(rupiah(invoice.tax), right=True)],
        [_cell(_("Total"), _BOLD), _cell(rupiah(invoice.total), _BOLD, right=True)],
    ]
    if invoice.returned:
        cells.append([_cell(_("Paid back")), _cell(rupiah(-invoice.returned), right=True)])
    styles: list[Any] = [("LINEBELOW", (0, 0), (-1, 0), 0.8, _LINE), ("LINEABOVE", (0, 3), (-1, 3), 0.8, _LINE)]
    return _table(cells, [116 * mm, 50 * mm], styles)


def _closing(invoice: Invoice) -> str:
    texts = {
        Invoice.State.OPEN: _("Please pay on the page of this invoice in the administration, under Plan and payment."),
        Invoice.State.PAID: _("Paid. Thank you."),
        Invoice.State.VOID: _("This invoice is void: nothing is to be paid."),
        Invoice.State.PARTLY_RETURNED: _("A part of this invoice was paid back."),
        Invoice.State.RETURNED: _("This invoice was paid back."),
    }
    return texts[Invoice.State(invoice.state)]


def _cell(text: str, font: str = _FONT, *, right: bool = False, color: Any = colors.black) -> Paragraph:
    return Paragraph(escape(_printable(text)), _style(10, font, right=right, color=color))


def _table(cells: list[list[Any]], widths: list[float], styles: list[Any]) -> Table:
    table = Table(cells, colWidths=widths, hAlign="LEFT")
    table.setStyle(TableStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 4), *styles]))
    return table


def _style(
    size: float, font: str = _FONT, *, leading: float = 14.0, right: bool = False, color: Any = colors.black
) -> ParagraphStyle:
    return ParagraphStyle(
        name="own", fontName=font, fontSize=size, leading=leading, textColor=color, alignment=2 if right else 0
    )


def _printable(text: str) -> str:
    font: Any = pdfmetrics.getFont(_FONT)
    glyphs = font.face.charToGlyph
    return "".join(letter if ord(letter) in glyphs else "?" for letter in text)


def _register_fonts() -> None:
    if _FONT not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont(_BOLD, str(_FONTS / "VeraBd.ttf")))
        pdfmetrics.registerFont(TTFont(_FONT, str(_FONTS / "Vera.ttf")))
