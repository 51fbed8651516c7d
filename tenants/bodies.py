"""What the pages and endpoints of this room take as a body, in bytes. Room: tenants.

Public: the server has to let a little more through than each of them accepts, so that it can say so itself.
"""

# A file with a list of MT5 accounts.
CSV_SIZE_LIMIT = 1_048_576
# The exchange of an API key for a token.
EXCHANGE_SIZE_LIMIT = 4_096
