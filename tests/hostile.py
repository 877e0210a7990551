"""What somebody may write into Redis to be taken for more than text, wherever it is shown."""

from __future__ import annotations

from typing import Final

#: Each is a merchant id that PostgreSQL can hold.
HOSTILE: Final = (
    "two\n2026-11-26 03:00:00 [error] PostgreSQL was dropped",
    "carriage\rreturn",
    "a line\u2028and a paragraph\u2029",
    "next\x85line",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31mred",
    "turned \u202ednuor\u202c",
    "zero\u200bwidth\ufeff",
    "back\x08\x08\x08space\x7f",
    "![x](http://example.org/pixel.png)",
    "[click](javascript:alert(1))",
    "http://example.org/bare and www.example.org and a@example.org",
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!channel> <@U1> <http://example.org|billing>",
    "&lt;b&gt; &amp; &#60;",
    "\"'` onmouseover=alert(1) `'\"",
    "*bold* _under_ __dunder__ ~struck~ ~~gone~~ `code` | table | # head",
    "\\[not a link\\](x) \\<b\\>",
    "> quoted - - - === ***",
    "[bold]rich[/bold] [link=http://example.org]x[/link]",
    "{{ 7 * 7 }} {% raw %} ${HOME} $(id) `id`",
    "%s %(merchant_id)s {0} {merchant_id}",
    "'; DROP TABLE merchant_usage; --",
    "../../etc/passwd",
    'style="background:url(//example.org)" expression(alert(1))',
    '=HYPERLINK("http://example.org")',
    "🎉" * 40,
    "-",
    "--help",
)
