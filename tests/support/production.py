"""Settings as a production machine has them, with keys made for the occasion."""

import secrets
from base64 import urlsafe_b64encode
from pathlib import Path

from tests.support.gateway import clean_environment


def production_environment(state_dir: Path, **settings: str) -> dict[str, str]:
    return clean_environment(
        state_dir,
        **{
            "GATEWAY_ENVIRONMENT": "production",
            "GATEWAY_SECRET_KEY": secrets.token_urlsafe(50),
            "GATEWAY_JWT_KEYS": f"first:HS256:{urlsafe_b64encode(secrets.token_bytes(32)).decode()}",
            "GATEWAY_ALLOWED_HOSTS": "gateway.example",
            "GATEWAY_ALLOWED_ORIGINS": "https://gateway.example",
            "GATEWAY_PUBLIC_URL": "https://gateway.example",
            "GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
            "GATEWAY_EMAIL_FROM": "Trading gateway <gateway@gateway.example>",
            "GATEWAY_KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
            "GATEWAY_EMAIL_URL": "smtp+tls://gateway:secret@mail.example:587",
            "GATEWAY_METRICS_TOKEN": secrets.token_urlsafe(24),
            "GATEWAY_TOPIC_REPLICATION": "3",
            "GATEWAY_SELLER_NAME": "PT Example",
            "MIDTRANS_SERVER_KEY": f"Mid-server-{secrets.token_urlsafe(16)}",
            # Refuses at once, where a name would be looked up for seconds.
            "DATABASE_URL": "postgresql://gateway:secret@127.0.0.1:1/gateway",
            "REDIS_URL": "redis://redis.example:6379/0",
            **settings,
        },
    )
