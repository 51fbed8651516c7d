"""Symbols of the demo and of load, with a price to start from. Room: tenants."""

# symbol -> (price in the quote currency, digits after the point)
DEMO_SYMBOLS: dict[str, tuple[float, int]] = {
    "EURUSD": (1.0850, 5),
    "GBPUSD": (1.2700, 5),
    "USDJPY": (151.20, 3),
    "AUDUSD": (0.6550, 5),
    "USDCHF": (0.8900, 5),
    "USDCAD": (1.3600, 5),
    "NZDUSD": (0.6050, 5),
    "EURJPY": (164.00, 3),
    "GBPJPY": (192.00, 3),
    "EURGBP": (0.8540, 5),
    "AUDJPY": (99.00, 3),
    "EURAUD": (1.6560, 5),
    "EURCHF": (0.9660, 5),
    "USDSGD": (1.3450, 5),
    "XAUUSD": (2350.0, 2),
    "XAGUSD": (28.00, 3),
    "BTCUSD": (67000.0, 2),
    "ETHUSD": (3300.0, 2),
    "US30": (39000.0, 1),
    "NAS100": (18300.0, 1),
}
