"""What the list of people does to the chosen ones. Room: tenants."""

import datetime

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenants import access, audit
from tenants.console.base import ScopedAdmin
from tenants.console.pages import confirm, is_confirmed
from tenants.console.scoping import actor_of
from tenants.models import Ban, User
from tenants.signin import devices
from tenants.signin.invitations import NotInvitable, send_invitation


class BanForm(forms.Form):
    hours = forms.TypedChoiceField(
        label=gettext_lazy("For how long"),
        coerce=int,
        choices=[
            (1, gettext_lazy("1 hour")),
            (24, gettext_lazy("1 day")),
            (7 * 24, gettext_lazy("7 days")),
            (30 * 24, gettext_lazy("30 days")),
        ],
    )
    detail = forms.CharField(
        label=gettext_lazy("Why"), max_length=200, help_text=gettext_lazy("The company's admins can read it.")
    )


class PersonActions(ScopedAdmin):
    actions = ("disable", "enable", "invite_again", "remove_device", "ban")

    @admin.action(description=gettext_lazy("Disable the chosen users"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        users = list(queryset)
        if any(user.pk == request.user.pk for user in users):
            text = _("Nothing was changed: nobody disables their own account; take it out of the choice.")
            self.message_user(request, text, messages.ERROR)
            return
        self._told(request, access.set_users_active(actor_of(request), users, is_active=False), is_active=False)

    @admin.action(description=gettext_lazy("Enable the chosen users"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._told(request, access.set_users_active(actor_of(request), list(queryset), is_active=True), is_active=True)

    def _told(self, request: HttpRequest, count: int, *, is_active: bool) -> None:
        text = (
            ngettext("%(count)d user is enabled.", "%(count)d users are enabled.", count)
            if is_active
            else ngettext(
                "%(count)d user is disabled; live connections end within seconds.",
                "%(count)d users are disabled; live connections end within seconds.",
                count,
            )
        )
        self.message_user(request, text % {"count": count}, messages.SUCCESS)

    @admin.action(description=gettext_lazy("Send the invitation again"), permissions=["change"])
    def invite_again(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.invite(request, list(queryset))

    def invite(self, request: HttpRequest, users: list[User]) -> None:
        inviter = request.user
        name = (inviter.get_full_name() if isinstance(inviter, User) else "") or inviter.get_username()
        for user in users:
            try:
                send_invitation(user, inviter_name=name, request=request)
            except NotInvitable as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                text = _("The invitation of %(name)s goes to %(email)s.") % {"name": user.username, "email": user.email}
                self.message_user(request, text, messages.SUCCESS)

    @admin.action(description=gettext_lazy("Remove a lost two-factor device"), permissions=["change"])
    def remove_device(self, request: HttpRequest, queryset: QuerySet[User]) -> TemplateResponse | None:
        users = [user for user in queryset if devices.has_device(user)]
        if any(user.pk == request.user.pk for user in users):
            text = _("Nothing was changed: your own device is on the page “Security”.")
            self.message_user(request, text, messages.ERROR)
            return None
        if not users:
            self.message_user(request, _("None of the chosen users has a two-factor device."), messages.WARNING)
            return None
        if not is_confirmed(request):
            return confirm(
                self,
                request,
                queryset.filter(pk__in=[user.pk for user in users]),
                action="remove_device",
                title=_("Remove a lost two-factor device"),
                text=_(
                    "Make sure that it is really they who ask: until a new device is set up, the password is enough."
                ),
                button=_("Remove"),
            )
        actor = actor_of(request)
        with transaction.atomic():
            for user in users:
                devices.remove_devices(user)
                audit.record(actor, "remove_two_factor", user, company_id=user.company_id)
        text = _("Removed: a new device can be set up at the next sign-in.")
        self.message_user(request, text, messages.SUCCESS)
        return None

    def has_ban_permission(self, request: HttpRequest) -> bool:
        return actor_of(request).sees_all

    @admin.action(description=gettext_lazy("Ban the chosen users…"), permissions=["ban"])
    def ban(self, request: HttpRequest, queryset: QuerySet[User]) -> TemplateResponse | None:
        users = list(queryset)
        if any(user.company_id is None for user in users):
            text = _("Nothing was changed: an operator has no terminals; disable the account instead.")
            self.message_user(request, text, messages.ERROR)
            return None
        form = BanForm(request.POST if is_confirmed(request) else None)
        if not (is_confirmed(request) and form.is_valid()):
            return confirm(
                self,
                request,
                queryset,
                action="ban",
                title=_("Ban users"),
                text=_("Their terminals are cut off now and not let in again before the time is over."),
                button=_("Ban"),
                form=form,
            )
        now = timezone.now()
        until = now + datetime.timedelta(hours=form.cleaned_data["hours"])
        for user in users:
            access.ban(
                actor_of(request),
                str(user.pk),
                Ban.Reason.OPERATOR,
                starts_at=now.timestamp(),
                until=until.timestamp(),
                repeat=1,
                detail=form.cleaned_data["detail"],
            )
        text = ngettext("%(count)d user is banned.", "%(count)d users are banned.", len(users))
        self.message_user(request, text % {"count": len(users)}, messages.SUCCESS)
        return None
