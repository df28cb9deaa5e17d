"""Texts without the keys and passwords that the addresses in them contain.

Addresses such as s3://KEY:SECRET@bucket, s3://bucket?secret_key=... and postgresql://user:password@host are needed to
connect, and nowhere else: what is logged, printed or raised goes through ``redacted``.
"""

from __future__ import annotations

import re
from typing import Any

_HIDDEN = "***"
# Of scheme://USER:PASSWORD@host everything before the host, which ends at the last @ of the part before a slash. A raw
# secret may hold slashes; then a colon that no port follows shows that it is one.
_USER = re.compile(r"(?<=://)(?:[^\s:/@]*:(?!\d{2,5}(?:/|$))[^\s@]*|[^\s/?#]*)@(?:[^\s/?#@]*@)*")
# Options of an address whose names speak of secrets: access_key, X-Amz-Signature, sslpassword, session_token, sig.
_OPTION = re.compile(
    r"(?P<name>[?&;][^\s=&;]*(?:key|secret|token|passw|pwd|credential|signature|sig)[^\s=&;]*=)[^\s&;#'\"]+",
    re.IGNORECASE,
)
# The same in the texts of database drivers: password=..., secret_key: '...'.
_FIELD = re.compile(
    r"(?P<name>\b(?:password|passwd|secret_key|access_key|secret_access_key|session_token)\s*[=:]\s*)(?!\*)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text with ``***`` for user, password, keys and tokens of the addresses in it; other text is unchanged."""
    if "://" in text:
        text = _OPTION.sub(rf"\g<name>{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", text))
    return _FIELD.sub(rf"\g<name>{_HIDDEN}", text)


def redacted_values(value: Any) -> Any:
    """A tree of dicts, lists and tuples with ``redacted`` texts; tuples become lists, as in JSON."""
    if isinstance(value, dict):
        return {redacted(key) if isinstance(key, str) else key: redacted_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_values(item) for item in value]
    return redacted(value) if isinstance(value, str) else value
