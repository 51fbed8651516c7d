"""Why a user is not let in, or let go: HTTP status, close code, what the client is told. Room: streaming."""

from collections.abc import Mapping

from streaming.core.codes import CloseCode

# By TerminalAccess.refusal.
REFUSALS: Mapping[str, tuple[int, CloseCode, str]] = {
    "user_disabled": (403, CloseCode.USER_DISABLED, "this user is disabled: ask the company's admin"),
    "company_suspended": (403, CloseCode.COMPANY_SUSPENDED, "the company is suspended: ask its admin"),
    "payment_required": (402, CloseCode.PAYMENT_REQUIRED, "the company's paid time is over: its admin can renew it"),
}

NO_SUCH_ACCOUNT = "this MT5 account is not registered to the user: ask the company's admin to add it"
