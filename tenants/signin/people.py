"""The people among whom somebody signs in: all, since nobody acts yet. Room: tenants."""

from django.db.models import QuerySet

from tenants.access import Actor, visible
from tenants.models import User

_SIGN_IN = Actor.system("sign-in")


def people() -> QuerySet[User]:
    return visible(_SIGN_IN, User)
