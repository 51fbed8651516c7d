"""The door to the tenant rows for every other room. Room: tenants.

Plain functions on the ORM; call them from a thread where an event loop runs. Whoever acts goes in as an ``Actor``; a
row of another company is answered as one that does not exist (NotVisible). Whatever changes what a user may do raises
the company's ``access_version`` in the same transaction, with an audit entry and an event: gateways hear of it at once
and poll it besides.
"""

from tenants.api_keys import create_api_key, rotate_api_key, usable_api_key
from tenants.changes import (
    delete_rows,
    kick,
    lock,
    note_following,
    prune_revoked_tokens,
    revoke_api_keys,
    revoke_token,
    save_row,
    set_company_status,
    set_paid_until,
    set_pairs,
    set_tier,
    set_users_active,
    touch,
    username_prefix,
)
from tenants.conduct import ban, ban_source, earned_by, lift_bans
from tenants.lookup import (
    CompanyName,
    Contact,
    companies,
    company,
    contacts,
    has_operator,
    person,
    person_named,
    person_of_session,
)
from tenants.presence import observe
from tenants.scope import Actor, NotVisible, company_ids_of, find, register_scope, visible
from tenants.terminal import (
    SourceBan,
    TerminalAccess,
    access_until,
    access_versions,
    kicks,
    revoked_tokens,
    terminal_access,
    terminal_accesses,
)

__all__ = [
    "Actor",
    "CompanyName",
    "Contact",
    "NotVisible",
    "SourceBan",
    "TerminalAccess",
    "access_until",
    "access_versions",
    "ban",
    "ban_source",
    "companies",
    "company",
    "company_ids_of",
    "contacts",
    "create_api_key",
    "delete_rows",
    "earned_by",
    "find",
    "has_operator",
    "kick",
    "kicks",
    "lift_bans",
    "lock",
    "note_following",
    "observe",
    "person",
    "person_named",
    "person_of_session",
    "prune_revoked_tokens",
    "register_scope",
    "revoke_api_keys",
    "revoke_token",
    "revoked_tokens",
    "rotate_api_key",
    "save_row",
    "set_company_status",
    "set_paid_until",
    "set_pairs",
    "set_tier",
    "set_users_active",
    "terminal_access",
    "terminal_accesses",
    "touch",
    "usable_api_key",
    "username_prefix",
    "visible",
]
