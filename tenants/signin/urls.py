"""HTTP paths of signing in; they go before the admin's own. Room: tenants."""

from django.urls import include, path

from tenants.signin import passwords, security, views

urlpatterns = [
    path("admin/login/code/", views.sign_in_code, name="sign-in-code"),
    path("admin/login/set-up/", security.sign_in_set_up, name="sign-in-set-up"),
    path("admin/security/", security.status, name="security"),
    path("admin/security/set-up/", security.set_up, name="security-set-up"),
    path("admin/security/turn-off/", security.turn_off, name="security-turn-off"),
    path("admin/security/recovery-codes/", security.recovery_codes, name="security-recovery-codes"),
    path("invitations/done/", passwords.welcome, name="invitation-done"),
    path("invitations/<uidb64>/<token>/", passwords.InvitationView.as_view(), name="invitation"),
    path("password-reset/", passwords.ask_reset, name="password-reset"),
    path("password-reset/sent/", passwords.reset_sent, name="password-reset-sent"),
    path("password-reset/done/", passwords.reset_done, name="password-reset-done"),
    path("password-reset/<uidb64>/<token>/", passwords.ResetLinkView.as_view(), name="password-reset-link"),
    path("i18n/", include("django.conf.urls.i18n")),
]
