"""The product's settings on a state of the tests' own: what a developer has exported or running is left alone."""

import os
import tempfile

for _name in [name for name in os.environ if name.startswith("GATEWAY_")]:
    del os.environ[_name]
os.environ.pop("REDIS_URL", None)
os.environ.pop("DATABASE_URL", None)
os.environ["GATEWAY_STATE_DIR"] = tempfile.mkdtemp(prefix="gateway-tests-")
if "TESTS_DATABASE_URL" in os.environ:
    os.environ["DATABASE_URL"] = os.environ["TESTS_DATABASE_URL"]

from gateway_project.settings import *  # noqa: E402, F403

# Hashing as slow as production's would be most of the time of the tests.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
