"""All settings, read from the environment once. ``.env.example`` lists each with its default and unit.

Without any environment this is a development machine: SQLite, embedded Valkey and broker, generated keys.
``GATEWAY_ENVIRONMENT=production`` takes nothing for granted: see ``checks.py``.
"""

import datetime
import os
import sys
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ

from gateway_project.env import Env, email_settings
from gateway_project.local_state import development_secrets, embedded_port
from gateway_project.logs import logging_config

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()

GATEWAY_ENVIRONMENT = env.choice("GATEWAY_ENVIRONMENT", "development", ("development", "production"))
IS_PRODUCTION = GATEWAY_ENVIRONMENT == "production"
GATEWAY_STATE_DIR = Path(env.text("GATEWAY_STATE_DIR", str(BASE_DIR / ".run")))
_generated: dict[str, str] = {} if IS_PRODUCTION else development_secrets(GATEWAY_STATE_DIR)

# --- Django -----------------------------------------------------------------------------------------------------------
DEBUG = env.flag("GATEWAY_DEBUG", False)
SECRET_KEY = env.text("GATEWAY_SECRET_KEY", _generated.get("GATEWAY_SECRET_KEY", "")) or "unset"
ALLOWED_HOSTS = env.items("GATEWAY_ALLOWED_HOSTS", "" if IS_PRODUCTION else "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.items("GATEWAY_CSRF_TRUSTED_ORIGINS")
GATEWAY_ALLOWED_ORIGINS = env.items("GATEWAY_ALLOWED_ORIGINS")
GATEWAY_TRUSTED_PROXIES = env.items("GATEWAY_TRUSTED_PROXIES", "" if IS_PRODUCTION else "127.0.0.1")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "axes",
    "csp",
    "channels",
    "gateway_project",
    "streaming",
    "billing",
    "tenants",
    # After tenants, whose templates go before the admin's own.
    "tenants.console.apps.ConsoleAdminConfig",
    "usage",
    "events",
]
if "runserver" in sys.argv:
    # Django's own development server speaks no WebSocket; every other command does without the time that Daphne takes.
    INSTALLED_APPS.insert(0, "daphne")
MIDDLEWARE = [
    "gateway_project.middleware.answer_probes",
    "gateway_project.middleware.only_utf8_forms",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    # The last: it replaces the answer to a sign-in that is locked out.
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "gateway_project.urls"
ASGI_APPLICATION = "gateway_project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
AUTH_USER_MODEL = "tenants.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("id", "Bahasa Indonesia")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "Asia/Jakarta"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = Path(env.text("GATEWAY_STATIC_DIR", str(BASE_DIR / "staticfiles")))
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "gateway_project.static.CollectedFiles"
        if IS_PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
# Files that were not collected are served from their packages: always on a development machine.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = not IS_PRODUCTION

# --- Database, Redis, Kafka -------------------------------------------------------------------------------------------
env.known.update(("DATABASE_URL", "REDIS_URL"))
GATEWAY_DATABASE_CONNECTION_LIMIT = env.count("GATEWAY_DATABASE_CONNECTION_LIMIT", 10, minimum=2)
_database_url = os.environ.get("DATABASE_URL", "") or f"sqlite:///{GATEWAY_STATE_DIR / 'gateway.sqlite3'}"
_database: dict[str, Any] = dict(environ.Env.db_url_config(_database_url))
if _database["ENGINE"] == "django.db.backends.sqlite3":
    # WAL lets the gateway read while the admin writes; IMMEDIATE makes writers queue instead of failing half-way.
    _database["OPTIONS"] = {
        "timeout": 10,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    # A pool of the process: under ASGI each request has a thread of its own, and a connection kept by a thread that has
    # ended is never given back.
    _database["CONN_HEALTH_CHECKS"] = True
    _database["OPTIONS"] = {
        **_database.get("OPTIONS", {}),
        "connect_timeout": 5,
        "options": "-c statement_timeout=10000",
        # A pool that tries for long to connect pauses for ever longer, and would sleep on when the database is back;
        # one that has given up begins anew with the next request.
        "pool": {
            "min_size": 1,
            "max_size": GATEWAY_DATABASE_CONNECTION_LIMIT,
            "timeout": 5,
            "reconnect_timeout": 4,
        },
    }
DATABASES = {"default": _database}

REDIS_URL = os.environ.get("REDIS_URL", "")
if not REDIS_URL and not IS_PRODUCTION and (_port := embedded_port(GATEWAY_STATE_DIR, "valkey")):
    REDIS_URL = f"redis://127.0.0.1:{_port}/0"
GATEWAY_KAFKA_BOOTSTRAP_SERVERS = env.text("GATEWAY_KAFKA_BOOTSTRAP_SERVERS")
if not GATEWAY_KAFKA_BOOTSTRAP_SERVERS and not IS_PRODUCTION and (_port := embedded_port(GATEWAY_STATE_DIR, "broker")):
    GATEWAY_KAFKA_BOOTSTRAP_SERVERS = f"127.0.0.1:{_port}"
# Extra librdkafka settings for the producer and the tools (security.protocol, sasl.*, ssl.*), key=value pairs.
GATEWAY_KAFKA_OPTIONS = env.table("GATEWAY_KAFKA_OPTIONS", "")
GATEWAY_KAFKA_LINGER = env.duration("GATEWAY_KAFKA_LINGER", "0ms")
GATEWAY_GATHER_INTERVAL = env.duration("GATEWAY_GATHER_INTERVAL", "3ms")
# A message that Kafka has not confirmed after this long means that Kafka is away: sessions end with 4003.
GATEWAY_BACKEND_TIMEOUT = env.duration("GATEWAY_BACKEND_TIMEOUT", "10s")
GATEWAY_TOPIC_PARTITIONS = env.count("GATEWAY_TOPIC_PARTITIONS", 6, minimum=1)
GATEWAY_TOPIC_REPLICATION = env.count("GATEWAY_TOPIC_REPLICATION", 1, minimum=1)
GATEWAY_ROUTES = env.table(
    "GATEWAY_ROUTES",
    "tick_data=tick-data,user_event=user-events,trading_signal=trading-signals,notification=notifications",
)
GATEWAY_FAILED_MESSAGES_TOPIC = env.text("GATEWAY_FAILED_MESSAGES_TOPIC", "failed-messages")
GATEWAY_SUBSCRIPTION_TOPIC = env.text("GATEWAY_SUBSCRIPTION_TOPIC", "subscription-status")
GATEWAY_ACTIVITY_TOPIC = env.text("GATEWAY_ACTIVITY_TOPIC", "user-activity")
GATEWAY_OUTBOX_POLL_INTERVAL = env.duration("GATEWAY_OUTBOX_POLL_INTERVAL", "200ms")

# --- Tokens -----------------------------------------------------------------------------------------------------------
GATEWAY_JWT_KEYS = env.text("GATEWAY_JWT_KEYS", _generated.get("GATEWAY_JWT_KEYS", ""))
GATEWAY_TOKEN_TTL = env.duration("GATEWAY_TOKEN_TTL", "1h")
GATEWAY_TOKEN_TTL_LIMIT = env.duration("GATEWAY_TOKEN_TTL_LIMIT", "24h")
GATEWAY_TOKEN_LEEWAY = env.duration("GATEWAY_TOKEN_LEEWAY", "5s")
GATEWAY_TOKEN_GRACE = env.duration("GATEWAY_TOKEN_GRACE", "25s")
GATEWAY_ACCESS_POLL_INTERVAL = env.duration("GATEWAY_ACCESS_POLL_INTERVAL", "3s")
GATEWAY_ACCESS_CACHE_TTL = env.duration("GATEWAY_ACCESS_CACHE_TTL", "5m")
# How often each process writes what companies have used, and reads what all have.
GATEWAY_USAGE_INTERVAL = env.duration("GATEWAY_USAGE_INTERVAL", "5s")
# How often the worker looks who is online, and the silence after which an MT5 account is said to be offline.
GATEWAY_PRESENCE_INTERVAL = env.duration("GATEWAY_PRESENCE_INTERVAL", "5s")
GATEWAY_PRESENCE_GRACE = env.duration("GATEWAY_PRESENCE_GRACE", "30s")
# Administrators who follow a user's messages through one process at once.
GATEWAY_FOLLOWER_LIMIT = env.count("GATEWAY_FOLLOWER_LIMIT", 10, minimum=1)

# --- Signing in -------------------------------------------------------------------------------------------------------
GATEWAY_TWO_FACTOR = env.choice(
    "GATEWAY_TWO_FACTOR", "required" if IS_PRODUCTION else "optional", ("required", "optional")
)
GATEWAY_INVITATION_TTL = env.duration("GATEWAY_INVITATION_TTL", "7d")
GATEWAY_PUBLIC_URL = env.text("GATEWAY_PUBLIC_URL").rstrip("/")
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
PASSWORD_RESET_TIMEOUT = 3_600
OTP_TOTP_ISSUER = "Trading gateway"
# Five failures of one name from one address: a stranger cannot lock anybody out from everywhere.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = datetime.timedelta(minutes=15)
# What the page says of the end of a lock-out holds: attempts during it do not put it off.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "tenants.signin.lockout.locked_out"
# The server has put the client's own address there, from the proxies that it trusts.
AXES_CLIENT_IP_CALLABLE = "tenants.signin.lockout.client_network"
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "code", "csrfmiddlewaretoken"]
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# --- E-mail -----------------------------------------------------------------------------------------------------------
vars().update(email_settings(env.text("GATEWAY_EMAIL_URL", "consolemail://")))
# Seconds: a mail server that hangs does not hold up who waits for the page.
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("GATEWAY_EMAIL_FROM", "Trading gateway <gateway@localhost>")

# --- Midtrans ---------------------------------------------------------------------------------------------------------
# A made-up key serves the stand-in of a development machine; Midtrans itself takes only real ones.
MIDTRANS_SERVER_KEY = env.text("MIDTRANS_SERVER_KEY", "" if IS_PRODUCTION else "SB-Mid-server-development")
MIDTRANS_SIGNING_KEYS = env.items("MIDTRANS_SIGNING_KEYS") or [MIDTRANS_SERVER_KEY]
MIDTRANS_BASE_URL = env.text("MIDTRANS_BASE_URL")
if not MIDTRANS_BASE_URL and not IS_PRODUCTION and (_port := embedded_port(GATEWAY_STATE_DIR, "midtrans_sandbox")):
    MIDTRANS_BASE_URL = f"http://127.0.0.1:{_port}"
elif not MIDTRANS_BASE_URL:
    MIDTRANS_BASE_URL = "https://api.midtrans.com" if IS_PRODUCTION else "https://api.sandbox.midtrans.com"
MIDTRANS_CONNECT_TIMEOUT = env.duration("MIDTRANS_CONNECT_TIMEOUT", "3s")
MIDTRANS_READ_TIMEOUT = env.duration("MIDTRANS_READ_TIMEOUT", "10s")
# Whose payments are taken for ours; empty: not compared.
MIDTRANS_MERCHANT_ID = env.text("MIDTRANS_MERCHANT_ID")

# --- Billing ----------------------------------------------------------------------------------------------------------
# Secrets of our own payment service, for /billing/events/; several at once while they rotate.
GATEWAY_WEBHOOK_SECRETS = env.items("GATEWAY_WEBHOOK_SECRETS")
# Refused and repeated messages of one address that are kept, a minute.
GATEWAY_REFUSED_RECEIPT_LIMIT = env.count("GATEWAY_REFUSED_RECEIPT_LIMIT", 60, minimum=1)
# Development only: how far the clock of billing is ahead.
GATEWAY_CLOCK_OFFSET = 0.0 if IS_PRODUCTION else env.duration("GATEWAY_CLOCK_OFFSET", "0s")
# Per cent; prices include it.
GATEWAY_TAX_RATE = env.decimal("GATEWAY_TAX_RATE", "11")
# Who sells, as on invoices.
GATEWAY_SELLER_NAME = env.text("GATEWAY_SELLER_NAME", "" if IS_PRODUCTION else "Trading gateway (development)")
GATEWAY_SELLER_ADDRESS = env.text("GATEWAY_SELLER_ADDRESS")
GATEWAY_SELLER_TAX_ID = env.text("GATEWAY_SELLER_TAX_ID")
# How long a payment page lives, and how long a company without access may owe before it is let go.
GATEWAY_PAYMENT_PAGE_TTL = env.duration("GATEWAY_PAYMENT_PAGE_TTL", "24h")
GATEWAY_WRITE_OFF_DELAY = env.duration("GATEWAY_WRITE_OFF_DELAY", "30d")
# Development only: the place at which a process of billing kills itself.
GATEWAY_BILLING_FAULT = env.text("GATEWAY_BILLING_FAULT")

# --- Limits of a connection and of the process ------------------------------------------------------------------------
GATEWAY_MESSAGE_SIZE_LIMIT = env.count("GATEWAY_MESSAGE_SIZE_LIMIT", 65_536, minimum=1_024)
GATEWAY_FRAGMENT_LIMIT = env.count("GATEWAY_FRAGMENT_LIMIT", 1_024, minimum=1)
GATEWAY_CONTROL_FRAME_RATE_LIMIT = env.rate("GATEWAY_CONTROL_FRAME_RATE_LIMIT", 20.0)
GATEWAY_READ_TURN_LIMIT = env.count("GATEWAY_READ_TURN_LIMIT", 64, minimum=1)
GATEWAY_CONNECTION_IN_FLIGHT_LIMIT = env.count("GATEWAY_CONNECTION_IN_FLIGHT_LIMIT", 256, minimum=1)
GATEWAY_PROCESS_IN_FLIGHT_LIMIT = env.count("GATEWAY_PROCESS_IN_FLIGHT_LIMIT", 40_000, minimum=1)
GATEWAY_PROCESS_IN_FLIGHT_MAX_SIZE = env.count("GATEWAY_PROCESS_IN_FLIGHT_MAX_SIZE", 134_217_728, minimum=1_048_576)
GATEWAY_PROCESS_CONNECTION_LIMIT = env.count("GATEWAY_PROCESS_CONNECTION_LIMIT", 20_000, minimum=1)
GATEWAY_ADDRESS_CONNECT_RATE_LIMIT = env.rate("GATEWAY_ADDRESS_CONNECT_RATE_LIMIT", 200.0)
GATEWAY_USER_CONNECT_RATE_LIMIT = env.rate("GATEWAY_USER_CONNECT_RATE_LIMIT", 2.0)
GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT = env.rate("GATEWAY_TOKEN_EXCHANGE_RATE_LIMIT", 10.0)
GATEWAY_OUTBOUND_MAX_SIZE = env.count("GATEWAY_OUTBOUND_MAX_SIZE", 1_048_576, minimum=65_536)
GATEWAY_OUTBOUND_TIMEOUT = env.duration("GATEWAY_OUTBOUND_TIMEOUT", "10s")
GATEWAY_HANDSHAKE_TIMEOUT = env.duration("GATEWAY_HANDSHAKE_TIMEOUT", "5s")
GATEWAY_HANDSHAKE_MAX_SIZE = env.count("GATEWAY_HANDSHAKE_MAX_SIZE", 32_768, minimum=4_096)
GATEWAY_CLOSE_TIMEOUT = env.duration("GATEWAY_CLOSE_TIMEOUT", "3s")
GATEWAY_PING_INTERVAL = env.duration("GATEWAY_PING_INTERVAL", "20s")
GATEWAY_PONG_TIMEOUT = env.duration("GATEWAY_PONG_TIMEOUT", "10s")
GATEWAY_ACK_INTERVAL = env.duration("GATEWAY_ACK_INTERVAL", "20ms")
GATEWAY_POSITION_FLUSH_INTERVAL = env.duration("GATEWAY_POSITION_FLUSH_INTERVAL", "100ms")
GATEWAY_POSITION_TTL = env.duration("GATEWAY_POSITION_TTL", "7d")
GATEWAY_DRAIN_TIMEOUT = env.duration("GATEWAY_DRAIN_TIMEOUT", "20s")
# The part of the drain over which the closes are spread.
GATEWAY_DRAIN_SPREAD = env.duration("GATEWAY_DRAIN_SPREAD", "5s")

# --- Commands, demo, benchmarks ---------------------------------------------------------------------------------------
GATEWAY_PORT = env.count("GATEWAY_PORT", 8000)
# Where commands on this machine find the gateway: what is said wins, then what "make run" has started.
RUNNING_GATEWAY_PORT = GATEWAY_PORT
if not env.text("GATEWAY_PORT") and not IS_PRODUCTION:
    RUNNING_GATEWAY_PORT = embedded_port(GATEWAY_STATE_DIR, "gateway") or GATEWAY_PORT
GATEWAY_DEMO = env.flag("GATEWAY_DEMO", True)
GATEWAY_BENCHMARK = env.flag("GATEWAY_BENCHMARK", False)
GATEWAY_METRICS_TOKEN = env.text("GATEWAY_METRICS_TOKEN")
GATEWAY_LOG_FORMAT = env.choice("GATEWAY_LOG_FORMAT", "json" if IS_PRODUCTION else "console", ("json", "console"))
GATEWAY_LOG_LEVEL = env.choice("GATEWAY_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
# Renewed by the worker after each round of its jobs.
GATEWAY_HEARTBEAT_PATH = env.text("GATEWAY_HEARTBEAT_PATH")
LOGGING = logging_config(GATEWAY_LOG_FORMAT, GATEWAY_LOG_LEVEL)
LOGGING_CONFIG = "logging.config.dictConfig"

# --- Bodies -----------------------------------------------------------------------------------------------------------
# The server bounds them by path, see bodies.py, before Django has any of it: a second bound would be in other words.
DATA_UPLOAD_MAX_MEMORY_SIZE = None

# --- Transport security -----------------------------------------------------------------------------------------------
SECURE_SSL_REDIRECT = IS_PRODUCTION
# Whoever sends payments' news takes a redirect for a failure and does not come back.
SECURE_REDIRECT_EXEMPT = [r"^billing/midtrans/notifications/?$", r"^billing/events/?$"]
# The server has put into the request's scheme what a trusted proxy says. Django would believe the header of anybody.
SECURE_PROXY_SSL_HEADER = None
USE_X_FORWARDED_HOST = USE_X_FORWARDED_PORT = False
SECURE_HSTS_SECONDS = 31_536_000 if IS_PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = IS_PRODUCTION
SECURE_HSTS_PRELOAD = IS_PRODUCTION
SESSION_COOKIE_SECURE = IS_PRODUCTION
CSRF_COOKIE_SECURE = IS_PRODUCTION
LANGUAGE_COOKIE_SECURE = IS_PRODUCTION
SESSION_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3_600
SESSION_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
# No inline scripts or styles anywhere. A page that needs more says so itself, with django-csp's decorators.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}

UNKNOWN_SETTINGS = env.unknown()
IS_TEST = "pytest" in sys.modules
