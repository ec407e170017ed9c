"""Templates of one feature each, and templates of published chat models, rendered by transformers.

Each of FEATURES is a template that uses one statement, filter, test, method, operator or error of Jinja. It is rendered
by `apply_chat_template` with MESSAGES and VARIABLES, at NOW. A case has the text, or the class and the message of the error.
"""

import datetime
import gzip
import json
import os
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from text_common import main

# The templates of all files in the folder, for a comparison that is not kept.
ALL = 'VOXTORCH_ALL_CHAT_TEMPLATES' in os.environ

NOW = (2026, 7, 5, 9, 3, 7, 45000)

MESSAGES = [
    {'role': 'system', 'content': 'Be brief.'},
    {'role': 'user', 'content': '  Grüße \U0001f600 you '},
    {'role': 'assistant', 'content': 'it\'s "fine"', 'tool_calls': [{'function': {'name': 'f', 'arguments': {'a': 1}}}]},
]

VARIABLES = {
    'text': 'Hello, world',
    'padded': '  xx a xx  ',
    'lines': 'one\ntwo\r\n\nthree\n',
    'emoji': 'a\U0001f600b\U0001f1e9',
    'items': [3, 1, 2],
    'words': ['b', 'A', 'c'],
    'mixed': [1, 'it\'s', None, 2.5, True, {'k': [1]}, 'say "it\'s"', '\x00\u200b\xe9\n'],
    'people': [{'name': 'Zoe', 'age': 30, 'home': {'city': 'Rome'}}, {'name': 'adam', 'age': 25, 'home': {'city': 'oslo'}}, {'name': 'Bob', 'age': 30, 'home': {'city': 'Oslo'}}],
    'd': {'b': 2, 'a': 1, 'C': 3},
    'nothing': None,
    'yes': True,
    'empty': '',
    'half': 2.5,
    'tree': [{'v': 1, 'kids': [{'v': 2, 'kids': []}, {'v': 3, 'kids': [{'v': 4, 'kids': []}]}]}],
    'html': '<a href="x">T&C\'s</a>',
}

FEATURES = {
    'whitespace': [
        'a\n{% if true %}\nb\n{% endif %}\nc\n', 'a\n  {% if true %}  \n  b\n  {% endif %}\nc\n\n', 'a  {%- if true %} b {%- endif -%}  c', '  {%+ if true %}x{% endif %}',
        'a\n  {{ 1 }}\n  b', 'a \n {{- 1 -}} \n b', '{% if true +%}\nx{% endif %}', 'a\r\nb\r{% if true %}\r\nc{% endif %}\r\n', '  {# c #}\nx', 'a {#- c -#} b', '{# a\nb #}\n\nx', '{#+ x #}y',
        '{% raw %}{{ x }}{% y %}{% endraw %}', '{%- raw -%}  {{ x }}  {%- endraw -%}  z', '{% raw %}\n a\n {% endraw %}\nb', '\ta\n\t{% set x = 1 %}\n{{ x }}\t\n', 'x{% set a = 1 %} \n{{ a }}', '\n\n', '', 'a\n', ' {%- if true -%}\n\n a \n\n{%- endif -%} ', '\x0b{% if true %}\x0bx{% endif %}', '{{ "a\r\nb" }}', "{% set x %}\n  a\n{% endset %}[{{ x }}]", 'a{{ 1 }}\n{{ 2 }}\n',
    ],
    'statements': [
        '{% for i in items %}{{ i }},{% endfor %}', '{% for i in [] %}x{% else %}none{% endfor %}', '{% for i in items %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}', '{% for i in items %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}',
        '{% for i in [1] %}{% continue %}{% else %}else{% endfor %}', '{% for a, b in d.items() %}{{ a }}={{ b }};{% endfor %}', '{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}', '{% for i in items if i > 1 %}{{ loop.index }}:{{ i }} {% endfor %}', '{% for i in items if i > 9 %}{% else %}no{% endfor %}',
        '{% for k in d %}{{ k }}{% endfor %}', '{% for c in emoji %}{{ c }}.{% endfor %}', '{% for i in undefined_name %}x{% else %}e{% endfor %}', '{% for i in range(3) %}{{ loop.first }}{{ loop.last }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.length }}{{ loop.depth }} {% endfor %}',
        '{% for i in items %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}', '{% for i in items %}{{ loop.cycle("odd", "even") }} {% endfor %}', '{% for i in [1, 1, 2] %}{{ loop.changed(i) }} {% endfor %}', '{% for n in tree recursive %}{{ n.v }}{% if n.kids %}({{ loop(n.kids) }}){% endif %}{{ loop.depth }}{% endfor %}',
        '{% for i in items %}{% for j in "ab" %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}', '{% for i in items %}{% set x = i %}{% endfor %}{{ x }}', '{% set x = 0 %}{% for i in items %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}', '{% for i in items %}{{ x }}{% set x = i %}{% endfor %}', '{% for a in [[1]] %}{% for b in a %}{{ a }}{{ b }}{% endfor %}{% endfor %}',
        '{% if false %}a{% elif items %}b{% else %}c{% endif %}', '{% if undefined_name %}a{% else %}b{% endif %}', '{% if not empty and (yes or nothing) %}a{% endif %}', '{% if true %}{% set x = 1 %}{% endif %}{{ x }}', '{% if 1, %}a{% endif %}',
        '{% set a, b = 1, 2 %}{{ a }}{{ b }}', '{% set a = 1, %}{{ a }}', '{% set x %}a{{ 1 }}{% endset %}{{ x }}', '{% set x | upper | trim %} ab {% endset %}[{{ x }}]', '{% set ns = namespace(a=1) %}{% for i in items %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}', '{% set ns = namespace({"x": 1}, y=2) %}{{ ns.x }}{{ ns.y }}{{ ns.z }}{{ ns }}', '{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}', '{% set d.x = 1 %}',
        '{% set ns = namespace(_x=1) %}', '{% set (a, (b, c)) = [1, [2, 3]] %}{{ c }}',
        '{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a }}', '{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}', '{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}', '{% filter upper %}a{{ "b" }}{% endfilter %}', '{% filter replace("a", "b") | upper %}abc{% endfilter %}', '{% print 1, "a" %}', '{% block b %}x{{ text }}{% endblock %}', '{% block b %}x{% endblock b %}{{ self.b() }}', '{% for i in [1, 2] %}{% block b scoped %}{{ i }}{% endblock %}{% endfor %}', '{% for i in [1] %}{% block b %}{{ i }}{% endblock %}{% endfor %}', '{% block a %}{{ super() }}{% endblock %}', '{{ self.zzz }}',
        '{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, c=3) }}|{{ m(b=1, a=9) }}', '{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}', '{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}', '{% macro m() %}{% endmacro %}{{ m(1) }}', '{% macro m() %}{% endmacro %}{{ m(x=1) }}', '{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{% endcall %}', '{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b=3) m() %}{{ a }}{{ b }}{% endcall %}', '{% macro m() %}{% endmacro %}{% call m() %}x{% endcall %}', '{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}', '{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}', '{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}', '{% macro m() %}{% set y = 1 %}{% endmacro %}{{ m() }}{{ y }}', '{% macro m() %}{% endmacro %}{{ m }}{{ m.name }}', '{% macro m(a, a2) %}{{ m.arguments is defined }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{"a": 1}) }}',
        '{% generation %}x{{ text }}{% endgeneration %}', '{% for m in messages %}{% generation %}{{ m.role }}{% set q = 1 %}{% endgeneration %}{{ q }}{% endfor %}',
        '{% include "x" %}', '{% import "x" as y %}', '{% from "x" import y %}', '{% extends "x" %}', '{% if false %}{% include "x" %}{% endif %}ok',
        '{% for loop in items %}{% endfor %}', '{% for i in items %}{% set loop = 1 %}{% endfor %}', '{% break %}', '{% if %}', '{% endif %}', '{% nope %}', '{% for %}', '{% for i in items %}', '{{', '{{ }}', '{% set true = 1 %}', '{% set 1 = 2 %}', '{{ x | }}', '{{ (1, 2 }}', '{{ 1 ] }}', '{# open', '{% raw %}', '{{ "open }}', '{{ a b }}', '{{ 1 ! 2 }}', '{% macro m(a=1, b) %}{% endmacro %}', '{{ f(a=1, 2) }}', '{% block a %}{% endblock %}{% block a %}{% endblock %}', '{% if true %}{% endfor %}', '{{ x is y is z }}', '{{ x | nope }}', '{{ x is nope }}', '{% if false %}{{ x | nope }}{% endif %}ok', '{{ 1 if true else x | nope }}', '{% if true %}{{ x | nope }}{% endif %}', '{% for i in [] %}{{ x | nope }}{% endfor %}',
    ],
    'expressions': [
        '{{ 1 + 2 * 3 - 4 / 2 }}', '{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 // -2 }} {{ 7.5 // 2 }} {{ -7.5 // 2 }}', '{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }}', '{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }} {{ 2 ** 100 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }}', '{{ 6 / 3 }} {{ 1 / 3 }} {{ 10 ** 20 / 3 }}', '{{ 1 / 0 }}', '{{ 1 // 0 }}', '{{ 1 % 0 }}', '{{ 1.0 / 0 }}', '{{ 0 ** -1 }}',
        '{{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-4 }} {{ 1e-5 }} {{ 123456789.123 }} {{ 1e300 * 1e10 }} {{ 0.1 + 0.2 }} {{ -0.0 }} {{ 1.5e3 }}', '{{ 9007199254740993 }} {{ 9007199254740993 * 3 }} {{ 10 ** 30 }}', '{{ 0x1f }} {{ 0b11 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.5 }} {{ 00 }}', '{{ 1 == 1.0 }} {{ true == 1 }} {{ "1" == 1 }} {{ [1] == [1] }} {{ [1] == (1,) }} {{ {"a": 1} == {"a": 1.0} }} {{ none == none }} {{ "a" != "b" }} {{ undefined_name == other_name }}', '{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 }} {{ 1 < 2 == 2 }}', '{{ "a" < "b" }} {{ "Z" < "a" }} {{ [1, 2] < [1, 3] }} {{ (1,) < (1, 2) }} {{ "\U0001f600" > "\ufffd" }} {{ 1 < 1.5 }}', '{{ 1 < "a" }}', '{{ none < 1 }}', '{{ {} < {} }}',
        '{{ 1 in items }} {{ 9 not in items }} {{ "lo" in text }} {{ "b" in d }} {{ 1.0 in items }} {{ 2 in range(3) }} {{ 2 in d.values() }} {{ ("a", 1) in d.items() }} {{ "" in "" }}', '{{ 1 in text }}', '{{ 1 in 2 }}', '{{ 1 in none }}', '{{ 1 in undefined_name }}', '{{ [1] in d }}', '{{ 1 and 0 }} {{ "" or "x" }} {{ none or false }} {{ not 1 }} {{ not undefined_name }} {{ 1 and "y" }} {{ [] and 1 }}', '{{ "a" ~ 1 ~ none ~ true ~ 1.0 ~ [1] ~ undefined_name }}', '{{ "a" + "b" }} {{ "ab" * 3 }} {{ 2 * "x" }} {{ [1] + [2] }} {{ [0] * 3 }} {{ (1,) + (2,) }} {{ "a" * -1 }} {{ [1] * true }}', '{{ "a" + 1 }}', '{{ 1 + "a" }}', '{{ [1] + (1,) }}', '{{ "a" - "b" }}', '{{ "a" * "b" }}', '{{ "a" * 1.5 }}', '{{ none + 1 }}', '{{ {} + {} }}', '{{ undefined_name + 1 }}', '{{ 1 + undefined_name }}', '{{ -undefined_name }}', '{{ -"a" }}', '{{ -true }} {{ +true }} {{ true + true }} {{ - 3 }} {{ --3 }}', '{{ 1 if true }}{{ 1 if false }}x{{ 2 if false else 3 }}', '{{ (1 if false) is defined }}', '{{ (1 if false).x }}', '{{ 1 if 0 else 2 if 0 else 3 }}',
        '{{ items[0] }} {{ items[-1] }} {{ items[9] }} {{ text[1] }} {{ emoji[1] }} {{ emoji[-1] }} {{ items[true] }} {{ items["x"] }} {{ items[1.0] }}', '{{ items[1:] }} {{ items[:-1] }} {{ items[::-1] }} {{ items[::2] }} {{ text[2:5] }} {{ emoji[1:3] }} {{ emoji[::-1] }} {{ (1, 2, 3)[1:] }} {{ items[5:1] }} {{ items[-9:9] }} {{ range(9)[2:5] }}', '{{ items[::0] }}', '{{ items["a":] }}', '{{ d[1:] }}', '{{ items[:none] }} {{ items[none:2:none] }}', '{{ d.b }} {{ d["b"] }} {{ d.zz }} {{ d["zz"] }} {{ d.get("zz") }} {{ d.get("zz", 5) }} {{ d.items }}'.replace(' {{ d.items }}', ''), '{{ text.zz }}|{{ text.zz is defined }}', '{{ text.zz.yy }}', '{{ undefined_name.x }}', '{{ undefined_name["x"] }}', '{{ undefined_name() }}', '{{ none.x }}', '{{ none.x.y }}', '{{ d.zz.y }}', '{{ items[9].y }}', '{{ items.0 }} {{ items.1 }}', '{{ 5() }}', '{{ text() }}', '{{ people.0.home.city }} {{ people[1]["home"]["city"] }}', '{{ text.__class__ }}', '{{ text.__class__.x }}', '{{ text.__class__() }}', '{{ items.append(1) }}', '{{ d.update({}) }}', '{{ d.pop("a") }}', '{{ items.append }}|{{ items.append is defined }}', '{{ d["keys"] is defined }}',
        '{{ [1, 2,] }} {{ [] }} {{ (1,) }} {{ () }} {{ (1, 2) }} {{ {} }} {{ {"a": 1,} }} {{ {1: 2, none: 3, (1, 2): 4, true: 5} }} {{ {"a": 1, "a": 2} }}', '{{ {[1]: 2} }}', '{{ mixed }}', '{{ messages }}', '{{ 1, 2 }}', '{{ true }} {{ True }} {{ none }} {{ None }} {{ false }}', '{{ "a\\nb\\t\\x41\\u00e9\\U0001f600\\\\\\\'\\"\\q\\101\\a" }}', "{{ 'it\\'s' }}", '{{ "a" "b" \'c\' }}', '{{ "\\x4" }}', '{{ "\\é" }}', '{{ "line\nbreak" }}', '{{ dict(a=1, b=2) }} {{ dict([("x", 1)]) }} {{ dict(d, z=1) }}', '{{ range(3) }} {{ range(1, 7, 2) | list }} {{ range(3, 0, -1) | list }} {{ range(0) | list }} {{ range(5)[1] }} {{ range(3) | length }}', '{{ range(100001) }}', '{{ range(1, 2, 0) }}', '{{ range("a") }}', '{{ range(1.5) }}', '{{ range() }}', '{% set c = cycler("a", "b") %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}', '{% set j = joiner("|") %}{{ j() }}a{{ j() }}b{{ j() }}', '{{ lipsum is defined }}', '{{ raise_exception("no: " ~ 1) }}', '{{ raise_exception("é") }}', '{{ messages[1].content }}', '{{ messages[2]["tool_calls"][0].function.arguments }}', '{{ text.upper }}'.replace('text.upper', 'text.upper()'), '{{ bos_token }}{{ eos_token }}{{ pad_token }}|{{ add_generation_prompt }}{{ tools }}{{ documents }}', '{{ (1, 2) | list + [3] }}', '{{ 2 | string + "x" }}', '{{ 1 is defined and 2 }}', '{{ not 1 is defined }}', '{{ 3 - 1 | abs }}', '{{ -1 | abs }}', '{{ (-1) | abs }}', '{{ "a" in "abc" and "x" not in "abc" }}', '{{ 1 == 1 and 2 != 3 or false }}', '{{ {"a": {"b": [1, {"c": "d"}]}}.a.b[1].c }}', '{{ [[1, 2], [3]][0][1] }}', '{{ "%s" % 1 ~ "x" }}', '{{ 1 ~ 2 + 3 }}', '{{ "a" ~ "b" * 2 }}', '{{ 10 ** 5000 }}', '{{ (10 ** 5000) > 1 }}',
        '{{ {}.get }}'.replace('{}.get', '{"a": 1}.get("a")'), '{{ d.keys() }} {{ d.values() }} {{ d.items() }} {{ d.keys() | list }} {{ d.items() | list }} {{ d.copy() }} {{ d.fromkeys(["q"]) }} {{ d.keys()[0] is defined }} {{ d.keys() | length }} {{ d.values() | sum }}', '{{ items.index(1) }} {{ items.count(3) }} {{ items.copy() }} {{ (1, 2).index(2) }}', '{{ items.index(9) }}', '{{ (5).bit_length() }} {{ half.is_integer() }} {{ (5).real }} {{ half.imag }}', '{{ d | length }} {{ emoji | length }} {{ items | count }} {{ undefined_name | length }}', '{{ 5 | length }}', '{{ none | length }}',
    ],
    'text methods': [
        '{{ text.upper() }} {{ text.lower() }} {{ "hELLO wORLD".capitalize() }} {{ "hello wORLD it\'s".title() }} {{ "aBc".swapcase() }} {{ "ß".upper() }} {{ "ΑΣ".lower() }} {{ "ǆ ß".title() }} {{ "Straße".casefold() }}', '[{{ padded.strip() }}][{{ padded.lstrip() }}][{{ padded.rstrip() }}]', '[{{ padded.strip(" x") }}][{{ "xxaxx".strip("x") }}][{{ "xyaxy".lstrip("yx") }}][{{ "abab".rstrip("b") }}][{{ "a\\n".rstrip("\\n") }}][{{ "--a".strip(none) }}]', '{{ "\\u3000a\\x1c\\ufeff".strip() | length }}', '{{ "a,b,,c".split(",") }} {{ " a  b ".split() }} {{ "a,b,c".split(",", 1) }} {{ "a b c".split(none, 1) }} {{ "a b c".split(maxsplit=1) }} {{ "".split() }} {{ "".split(",") }} {{ "a--b".split("--") }}', '{{ "a,b,c".rsplit(",", 1) }} {{ " a b c ".rsplit(none, 1) }} {{ "abc".rsplit() }} {{ "a,b".rsplit(sep=",") }}', '{{ "a".split("") }}', '{{ "a".split(1) }}', '{{ lines.splitlines() }} {{ lines.splitlines(true) }} {{ "a\\u2028b\\x0bc".splitlines() }} {{ "".splitlines() }}', '{{ "a-b-c".partition("-") }} {{ "abc".partition("-") }} {{ "a-b-c".rpartition("-") }} {{ "abc".rpartition("-") }}', '{{ "hello".find("l") }} {{ "hello".find("z") }} {{ "hello".rfind("l") }} {{ "hello".find("l", 3) }} {{ "hello".find("l", -2, -1) }} {{ emoji.find("b") }} {{ "a".find("") }}', '{{ "hello".index("l") }} {{ "hello".rindex("l") }}', '{{ "hello".index("z") }}', '{{ "banana".count("an") }} {{ "banana".count("") }} {{ "banana".count("a", 2) }} {{ "aaa".count("aa") }}', '{{ "banana".replace("a", "o") }} {{ "banana".replace("a", "o", 2) }} {{ "ab".replace("", "-") }} {{ "aaa".replace("aa", "b") }} {{ "a".replace("a", "$&") }}', '{{ "abc".startswith("ab") }} {{ "abc".endswith("bc") }} {{ "abc".startswith(("x", "a")) }} {{ "abc".startswith("b", 1) }} {{ "abc".endswith("b", 0, 2) }} {{ "abc".startswith("") }}', '{{ "abc".startswith(1) }}', '{{ "-".join(["a", "b"]) }} {{ "-".join("abc") }} {{ "".join([]) }} {{ "-".join(d) }}', '{{ "-".join([1]) }}', '{{ "-".join(1) }}', '[{{ "a".center(5) }}][{{ "ab".center(5, "*") }}][{{ "a".ljust(3) }}][{{ "a".rjust(3, "0") }}][{{ "-5".zfill(4) }}][{{ "ab".zfill(1) }}][{{ emoji.center(7, ".") }}]', '{{ "a".center(5, "xx") }}', '{{ "a\\tb\\n\\tc".expandtabs() }}|{{ "a\\tb".expandtabs(4) }}', '{{ "abc".removeprefix("a") }} {{ "abc".removesuffix("c") }} {{ "abc".removeprefix("x") }} {{ "abc".removesuffix("") }}', '{{ "a1".isalnum() }}{{ "a".isalpha() }}{{ "1".isdigit() }}{{ "²".isdigit() }}{{ "²".isdecimal() }}{{ "½".isnumeric() }}{{ "a".islower() }}{{ "A1".isupper() }}{{ " ".isspace() }}{{ "Ab Cd".istitle() }}{{ "a_1".isidentifier() }}{{ "é".isascii() }}{{ "\\n".isprintable() }}{{ "".isalpha() }}{{ "".isascii() }}{{ "1".islower() }}', '{{ "abc".translate({97: "x", 98: none}) }} {{ "ab".translate("".maketrans("a", "z")) }}', '{{ "{} {1}".format(1) }}', '{{ "{} {}".format("a", 1) }} {{ "{1}{0}".format("a", "b") }} {{ "{x}".format(x=2) }} {{ "{0[a]} {0.b}".format({"a": 1}) }} {{ "{{}}".format() }} {{ "{!r}".format("a") }} {{ "{:>5}|{:<5}|{:^5}".format("a", "b", "c") }}', '{{ "{:05d} {:+d} {:,} {:x} {:#x} {:b} {:e} {:.2f} {:.0f} {:g} {:%} {:_}".format(42, 42, 1234567, 255, 255, 5, 12345.678, 3.14159, 2.5, 0.00001, 0.25, 1234567) }}', '{{ "{:*^9}|{:.2}|{:{w}}".format("ab", "abc", "x", w=4) }}', '{{ "{a}".format_map({"a": 1}) }}', '{{ "{}".format() }}', '{{ "{x}".format() }}', '{{ "{".format() }}', '{{ "}".format() }}', '{{ "{:d}".format("a") }}', '{{ "a".encode() }}', '{{ "a".upper(1) }}', '{{ "a".strip(1) }}', '{{ "a".replace("a") }}', '{{ "a".nope() }}', '{{ 5 .upper() }}', '{{ " a ".strip().upper().lower() }}',
    ],
    'printf': [
        '{{ "%s %d %5.2f %x %o %e %g %c %r %%" % ("a", 5, 3.14159, 255, 8, 12345.678, 0.0001, "z", "q") }}', '{{ "%(a)s %(b)d" % {"a": 1, "b": 2} }}', '{{ "%s" % none }} {{ "%s" % [1] }} {{ "%s" % ((1, 2),) }} {{ "%-5s|%5s|%05d|%+d|% d" % ("a", "b", 42, 5, 5) }}', '{{ "%s %s" % 1 }}', '{{ "%s" % (1, 2) }}', '{{ "%d" % "a" }}', '{{ "%z" % 1 }}', '{{ "%" % 1 }}', '{{ "%*d" % (5, 3) }} {{ "%.3s" % "abcdef" }} {{ "%#x %X" % (255, 255) }} {{ "%i" % 3.9 }} {{ "%s" % true }} {{ "%d" % true }} {{ "%a" % "é" }} {{ "%.0f %.0f" % (0.5, 1.5) }} {{ "%s" % 1e22 }}', '{{ "x" % () }} {{ "x" % {} }}', '{{ "x" % 1 }}', '{{ "%s and %s" | format("a", "b") }} {{ "%(x)s" | format(x=1) }}', '{{ "%s" | format() }}',
    ],
    'filters': [
        '{{ -5 | abs }} {{ (-5) | abs }} {{ (-2.5) | abs }} {{ true | abs }}', '{{ "a" | abs }}', '{{ text | attr("upper") is defined }} {{ d | attr("b") is defined }}', '{{ items | batch(2) | list }} {{ items | batch(2, "x") | list }}', '{{ "hELLO wORLD" | capitalize }} {{ "éa" | capitalize }} {{ 5 | capitalize }} {{ "" | capitalize }}', '[{{ "ab" | center(7) }}][{{ "abc" | center(6) }}]', '{{ items | count }} {{ "abc" | count }}', '{{ undefined_name | d("x") }} {{ none | d("x") }} {{ "" | default("x", true) }} {{ none | default("x", boolean=true) }} {{ undefined_name | default }}|{{ 0 | default(5) }}', '{{ d | dictsort }} {{ d | dictsort(true) }} {{ d | dictsort(false, "value") }} {{ d | dictsort(reverse=true) }}', '{{ d | dictsort(by="x") }}', '{{ html | e }} {{ html | escape }} {{ html | e | e }} {{ html | forceescape }} {{ (html | e) | forceescape }} {{ 5 | e }}', '{{ ("<" | e) + "<" }} {{ "<" ~ ("<" | e) }} {{ ("<" | e) | length }} {{ ("<a" | e).upper() }} {{ ["<" | e] }} {{ "<" | e is string }}', '{{ 1 | filesizeformat }} {{ 999 | filesizeformat }} {{ 1000 | filesizeformat }} {{ 13000000 | filesizeformat }} {{ 1024 | filesizeformat(true) }} {{ "500" | filesizeformat }}', '{{ items | first }} {{ "abc" | first }} {{ d | first }} {{ [] | first is defined }} {{ emoji | first }}', '{{ 5 | first }}', '{{ "1.5" | float }} {{ "x" | float }} {{ "x" | float(2) }} {{ 3 | float }} {{ "1e3" | float }} {{ " 1_0 " | float }} {{ "nan" | float }} {{ "-inf" | float }} {{ none | float }}', '{{ people | groupby("age") }}', '{% for g in people | groupby("home.city") %}{{ g.grouper }}:{{ g.list | map(attribute="name") | join(",") }} {% endfor %}', '{% for k, v in people | groupby("age", default=1) %}{{ k }}{{ v | length }} {% endfor %}', '{{ lines | indent }}', '{{ lines | indent(2, true) }}', '{{ lines | indent("> ", first=true, blank=true) }}', '{{ "a\nb" | indent(width=1) }}', '{{ "42" | int }} {{ "42.9" | int }} {{ "x" | int }} {{ "x" | int(7) }} {{ "ff" | int(base=16) }} {{ "0x1f" | int(0, 16) }} {{ 3.9 | int }} {{ -3.9 | int }} {{ true | int }} {{ none | int }} {{ " 1_000 " | int }} {{ "12abc" | int }} {{ "0b11" | int(0, 2) }} {{ [] | int(5) }} {{ "1e2" | int }}', '{{ d | items | list }} {{ undefined_name | items | list }}', '{{ items | items | list }}', '{{ items | join }} {{ items | join(", ") }} {{ people | join(",", attribute="name") }} {{ "abc" | join("-") }} {{ mixed | join("|") }} {{ [] | join }} {{ undefined_name | join }} {{ d | join }}', '{{ 5 | join }}', '{{ items | last }} {{ "abc" | last }} {{ [] | last is defined }} {{ d | last }} {{ emoji | last }}', '{{ items | map("string") | last }}', '{{ "abc" | list }} {{ d | list }} {{ (1, 2) | list }} {{ emoji | list }} {{ undefined_name | list }}', '{{ 5 | list }}', '{{ "ABC" | lower }} {{ 5 | lower }} {{ none | lower }} {{ true | upper }}', '{{ people | map(attribute="name") | list }} {{ people | map(attribute="home.city") | list }} {{ people | map(attribute="zz", default="-") | list }} {{ people | map(attribute="zz") | list }} {{ words | map("upper") | list }} {{ words | map("replace", "b", "x") | list }} {{ [[1, 2]] | map(attribute=0) | list }} {{ [[1, 2]] | map("first") | list }} {{ ["a b"] | map("title") | list }}', '{{ items | map | list }}', '{{ items | map("nope") | list }}', '{{ items | map(attribute="a", x=1) | list }}', '{{ items | map("string") is iterable }} {{ (items | map("string")) is sequence }} {{ (items | select) and true }}', '{{ items | map("string") | length }}', '{{ items | map("string") | list | length }}', '{{ items | max }} {{ items | min }} {{ words | max }} {{ words | min(true) }} {{ people | max(attribute="age") }} {{ [] | max is defined }} {{ "abc" | max }}', '{{ [1, "a"] | max }}', '{{ 5 | pprint }}', '{{ [1] | random }}', '{{ items | reject("odd") | list }} {{ items | reject | list }} {{ people | rejectattr("age", "eq", 30) | map(attribute="name") | list }} {{ people | rejectattr("zz") | list | length }}', '{{ "banana" | replace("a", "o") }} {{ "banana" | replace("a", "o", 1) }} {{ 505 | replace(5, 6) }} {{ "aa" | replace("a", "b", count=1) }}', '{{ "abc" | reverse }} {{ items | reverse | list }} {{ d | reverse | list }} {{ emoji | reverse }} {{ (1, 2) | reverse | list }}', '{{ 5 | reverse }}', '{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 42.55 | round(1, "floor") }} {{ 42.51 | round(0, "ceil") }} {{ 5 | round }} {{ 1234 | round(-2) }} {{ 1250 | round(-2) }} {{ 1350 | round(-2) }} {{ 5.5 | round | int }} {{ -2.5 | round }} {{ 0.5 | round }} {{ 1e300 | round(2) }} {{ 1234.5 | round(-2) }} {{ true | round }}', '{{ 2.5 | round(1, "up") }}', '{{ "a" | round }}', '{{ html | safe }} {{ html | safe | e }}', '{{ items | select("odd") | list }} {{ items | select("gt", 1) | list }} {{ mixed | select("string") | list | length }} {{ [0, 1, ""] | select | list }} {{ items | select("in", [1, 2]) | list }} {{ people | selectattr("age", "equalto", 30) | map(attribute="name") | list }} {{ people | selectattr("home.city", "eq", "oslo") | list | length }} {{ people | selectattr("name") | list | length }} {{ people | selectattr("zz", "defined") | list }}', '{{ items | select("nope") | list }}', '{{ people | selectattr | list }}', '{{ range(7) | slice(3) | list }} {{ range(7) | slice(3, "x") | list }}', '{{ items | sort }} {{ items | sort(true) }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ people | sort(attribute="age") | map(attribute="name") | list }} {{ people | sort(attribute="age,name") | map(attribute="name") | list }} {{ people | sort(reverse=true, attribute="age") | map(attribute="name") | list }} {{ "bca" | sort }} {{ d | sort }}', '{{ [1, "a"] | sort }}', '{{ [none, 1] | sort }}', '{{ 5 | string }} {{ none | string }} {{ [1] | string | length }} {{ "a" | string }}', '{{ html | striptags }}', '{{ items | sum }} {{ people | sum(attribute="age") }} {{ items | sum(start=10) }} {{ [1.5, 2] | sum }} {{ [] | sum }} {{ [[1], [2]] | sum(start=[]) }}', '{{ ["a"] | sum }}', '{{ ["a"] | sum(start="") }}', '{{ "hello wORLD foo-bar (baz) it\'s" | title }} {{ "élan ßa" | title }} {{ "" | title }}', '{{ {"b": [1, 2.0, none, true], "a": "é<&\'\\"\\n"} | tojson }}', '{{ d | tojson(indent=2) }}', '{{ d | tojson(sort_keys=true) }} {{ "é\U0001f600" | tojson(ensure_ascii=true) }} {{ [1, {"a": []}] | tojson(separators=(",", ":")) }} {{ {} | tojson(indent=4) }} {{ [[], {}] | tojson(indent=1) }}', '{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ (1, 2) | tojson }} {{ 1e16 | tojson }} {{ ("<" | e) | tojson }} {{ "\\x7f\\u2028" | tojson }}', '{{ undefined_name | tojson }}', '{{ d.items() | tojson }}', '{{ {(1, 2): 3} | tojson }}', '{{ items | tojson(indent="\t") }}', '{{ items | tojson(true, 1) }}', '{{ items | tojson(foo=1) }}', '[{{ padded | trim }}][{{ "xxaxx" | trim("x") }}][{{ 5 | trim }}][{{ padded | trim(chars=" x") }}]', '{{ "foo bar baz qux" | truncate(9) }} {{ "foo bar baz qux" | truncate(9, true) }} {{ "foo bar baz qux" | truncate(11) }} {{ "foo bar baz qux" | truncate(11, false, "...", 0) }} {{ "abc" | truncate }} {{ ("\U0001f600" * 9) | truncate(3, true, "", 0) }}', '{{ "abcdef" | truncate(2) }}', '{{ ["a", "A", "b", "a"] | unique | list }} {{ ["a", "A"] | unique(true) | list }} {{ people | unique(attribute="age") | map(attribute="name") | list }} {{ [1, 1.0, true] | unique | list }}', '{{ "abc" | upper }} {{ "ß" | upper }}', '{{ "a b/ü?&" | urlencode }} {{ {"a": "b c", "d": 1} | urlencode }} {{ [("x", "/")] | urlencode }} {{ 5 | urlencode }}', '{{ "see http://a.com" | urlize }}', '{{ "a b, c-d é_1" | wordcount }}', '{{ "the quick brown fox jumps" | wordwrap(10) }}', '{{ "a-very-long-hyphenated word" | wordwrap(8) }}', '{{ "abcdefghij kl" | wordwrap(4, false) }}', '{{ "abcdefghij kl" | wordwrap(4, wrapstring="|") }}', '{{ {"a": 1, "b": none, "c": "<"} | xmlattr }} {{ {} | xmlattr }}', '{{ {"a b": 1} | xmlattr }}', '{{ items | join(",") | replace(",", ";") | upper }}', '{{ items | list | first | string | length }}', '{{ items | join(foo=1) }}', '{{ items | batch }}', '{{ text | lower(1) }}',
    ],
    'tests': [
        '{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 3 is not odd }}', '{{ text is defined }} {{ zz is undefined }} {{ zz is not defined }} {{ none is none }} {{ d.zz is defined }}', '{{ true is boolean }} {{ 1 is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }}', '{{ 1 is integer }} {{ true is integer }} {{ 1.0 is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ 1 is number }} {{ true is number }} {{ "1" is number }}', '{{ "abc" is lower }} {{ "ABC" is upper }} {{ "Abc" is lower }} {{ 1 is lower }}', '{{ "a" is string }} {{ 1 is string }} {{ d is mapping }} {{ items is mapping }} {{ items is sequence }} {{ "a" is sequence }} {{ d is sequence }} {{ 1 is sequence }} {{ (1,) is sequence }} {{ range(3) is sequence }} {{ zz is sequence }} {{ d.items() is sequence }}', '{{ items is iterable }} {{ "a" is iterable }} {{ 1 is iterable }} {{ none is iterable }} {{ zz is iterable }} {{ d.items() is iterable }}', '{{ range is callable }} {{ text is callable }} {{ zz is callable }} {{ text.upper is callable }} {{ namespace is callable }}', '{{ none is sameas none }} {{ 1 is sameas true }} {{ false is sameas(false) }} {{ items is sameas items }} {{ [1] is sameas [1] }}', '{{ ("a" | e) is escaped }} {{ "a" is escaped }}', '{{ 1 is in [1, 2] }} {{ "a" is in "abc" }} {{ 5 is in(items) }} {{ 1 is not in [2] }}', '{{ 1 is eq 1 }} {{ 1 is equalto 2 }} {{ 1 is ne 2 }} {{ 2 is gt 1 }} {{ 2 is greaterthan 1 }} {{ 2 is ge 2 }} {{ 1 is lt 2 }} {{ 1 is lessthan 2 }} {{ 1 is le 1 }} {{ 1 is eq(1.0) }}', '{{ "upper" is filter }} {{ "nope" is filter }} {{ "odd" is test }} {{ "nope" is test }}', '{{ "a" is odd }}', '{{ none is odd }}', '{{ zz is odd }}', '{{ 2.0 is even }}', '{{ 5 is divisibleby 0 }}', '{{ 1 is gt "a" }}', '{{ messages is string or messages is iterable }}', '{{ items is defined and items is not none }}', '{% if messages[0].content is string %}s{% endif %}', '{{ 1 is defined is defined }}', '{{ zz is defined or text is string }}', '{{ 3 is odd and 4 is even if true else 0 }}', '{{ [1, 2] is eq [1, 2] }}', '{{ d is eq {"a": 1} }}', '{{ 1 is eq -1 }}', '{{ zz is none }} {{ zz is string }} {{ zz is mapping }} {{ zz is number }}',
    ],
    # Written here, in the form that families have whose published templates have terms of use, or no license that was found: Gemma (system text in
    # the first turn, another name of a role), LLaMA 3 (headers, a date, calls as JSON), OLMo 2 (the end token between turns), Mixtral (turns that alternate).
    'families': [
        "{{ bos_token }}{% set lead = '' %}{% if messages[0].role == 'system' %}{% set lead = messages[0].content | trim ~ '\n\n' %}{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ lead if loop.first else '' }}{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}{{ '<start_of_image>' if part.type == 'image' else part.text | trim }}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "{{- bos_token }}\n{%- set today = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}\n{%- for m in messages %}\n    {{- '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' }}\n    {%- if m.role == 'system' %}{{- 'Today: ' ~ today ~ '\\n' }}{%- endif %}\n    {%- if m.tool_calls is defined and m.tool_calls | length == 1 %}\n        {{- '{\"name\": \"' ~ m.tool_calls[0].function.name ~ '\", \"parameters\": ' ~ m.tool_calls[0].function.arguments | tojson ~ '}' }}\n    {%- else %}{{- m.content | trim }}{%- endif %}\n    {{- '<|eot_id|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}",
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\\n' + m['content'] + eos_token + '\\n' }}{% else %}{{ '<|assistant|>\\n' + m['content'] + eos_token }}{% endif %}{% else %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '\\n' }}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}",
        "{{ bos_token }}{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index0 is even) %}{{ raise_exception('After the system message, roles must alternate: ' ~ m.role) }}{% endif %}{% if m.role == 'user' %}[INST] {{ messages[0].content ~ '\\n\\n' if loop.first and messages[0].role == 'system' }}{{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 is even) %}{{ raise_exception('roles must alternate, got ' ~ m.role) }}{% endif %}{% endfor %}",
    ],
    'dates': ['{{ strftime_now("%d %b %Y %B %A %a %y %m %H %I %M %S %p") }}', '{{ strftime_now("%-d %-m %-H %-I %e %j %F %T %D %R %r %c %x %X %w %u %f %% %n%t|") }}', '{{ strftime_now("%Z%z|%U %W %V %G %g %C %h %k %l %P %s") }}'.replace(' %s', ''), '{{ strftime_now("%Q %E %_d %0e %^a %#p %10d %-y é") }}', '{{ strftime_now() }}', '{{ strftime_now(1) }}', '{{ strftime_now("") }}|'],
}

# PyPI and the standard library give these a text that holds an address or a random choice, or takes tables that are not
# here: they are refused by name.
REFUSED = ['| pprint', '| random', '| striptags', '| urlize', '.encode(', '{% include', '{% import', '{% from', '{% extends']


def tokenizer():
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({'<unk>': 0}, '<unk>')), bos_token='<s>', eos_token='</s>')
    return made


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(*NOW)


def rendered(template, messages=MESSAGES, one=None, **options):
    try:
        text = (one or TOKENIZER).apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        return {'text': text}
    except Exception as error:
        return {'error': type(error).__name__, 'message': str(error)[:300]}


TOKENIZER = tokenizer()
chat_template_utils.datetime = Clock


def features():
    cases = []
    for group, templates in FEATURES.items():
        for template in dict.fromkeys(templates):
            case = {'group': group, 'template': template, **rendered(template, **VARIABLES)}
            if 'error' in case and any(part in template for part in REFUSED) or any(part in template for part in REFUSED[:5]):
                case['refused'] = True
            cases.append(case)
    print(len(cases), 'templates of one feature')
    whole = {'now': NOW, 'messages': MESSAGES, 'variables': VARIABLES, 'cases': cases}
    return gzip.compress(json.dumps(whole).encode(), 9, mtime=0)


# The files are those of llama.cpp (MIT), which PyPI's source archive of llama-cpp-python holds in vendor/llama.cpp/models/templates:
# VOXTORCH_CHAT_TEMPLATES names that folder. Only templates under a license that permits redistribution stand here: the license, where it is
# stated, and how it was read in November 2026. 'card': the model's page or a copy of its README or LICENSE (of another model of the series
# where the address says so), 'maker': an announcement of who made the model, 'others': pages of others that name the license of that card.
# Bielik-11B-v3.0-Instruct is left out: no page that states its license was found.
PUBLISHED = {
    'Apertus-8B-Instruct': ('Apache-2.0', 'https://huggingface.co/swiss-ai/Apertus-8B-Instruct-2509', 'card'),
    'Apriel-1.6-15b-Thinker-fixed': ('MIT', 'https://huggingface.co/ServiceNow-AI/Apriel-1.6-15b-Thinker', 'card'),
    'ByteDance-Seed-OSS': ('Apache-2.0', 'https://huggingface.co/ByteDance-Seed/Seed-OSS-36B-Instruct', 'card'),
    'GLM-4.6': ('MIT', 'https://huggingface.co/zai-org/GLM-4.6', 'others'),
    'GLM-4.7-Flash': ('MIT', 'https://huggingface.co/zai-org/GLM-4.7-Flash', 'card'),
    'GigaChat3-10B-A1.8B': ('MIT', 'https://github.com/salute-developers/gigachat3', 'maker'),
    'GigaChat3.1-10B-A1.8B': ('MIT', 'https://huggingface.co/ai-sage/GigaChat3.1-10B-A1.8B-GGUF', 'card'),
    'HuggingFaceTB-SmolLM3-3B': ('Apache-2.0', 'https://huggingface.co/HuggingFaceTB/SmolLM3-3B', 'card'),
    'MiMo-VL': ('MIT', 'https://huggingface.co/XiaomiMiMo/MiMo-VL-7B-RL', 'card'),
    'MiniMax-M1': ('Apache-2.0', 'https://huggingface.co/MiniMaxAI/MiniMax-M1-80k', 'card'),
    'Mistral-Small-3.2-24B-Instruct-2506': ('Apache-2.0', 'https://huggingface.co/mistralai/Mistral-Small-3.2-24B-Instruct-2506', 'others'),
    'Qwen-QwQ-32B': ('Apache-2.0', 'https://qwenlm.github.io/blog/qwq-32b', 'maker'),
    'Qwen-Qwen2.5-7B-Instruct': ('Apache-2.0', 'https://huggingface.co/Qwen/Qwen2.5-7B-Instruct', 'others'),
    'Qwen-Qwen3-0.6B': ('Apache-2.0', 'https://huggingface.co/Qwen/Qwen3-0.6B', 'card'),
    'Qwen3-Coder': ('Apache-2.0', 'https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct', 'card'),
    'Qwen3.5-4B': ('Apache-2.0', 'https://huggingface.co/Qwen/Qwen3.5-4B', 'others'),
    'StepFun3.5-Flash': ('Apache-2.0', 'https://huggingface.co/stepfun-ai/Step-3.5-Flash-Int4', 'card'),
    'deepseek-ai-DeepSeek-R1-Distill-Qwen-32B': ('MIT', 'https://huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Qwen-32B', 'card'),
    'deepseek-ai-DeepSeek-V3.1': ('MIT', 'https://huggingface.co/deepseek-ai/DeepSeek-V3.1', 'others'),
    'deepseek-ai-DeepSeek-V3.2': ('MIT', 'https://huggingface.co/deepseek-ai/DeepSeek-V3.2-Speciale', 'card'),
    'ibm-granite-granite-3.3-2B-Instruct': ('Apache-2.0', 'https://huggingface.co/ibm-granite/granite-3.3-2b-instruct', 'others'),
    'ibm-granite-granite-4.0': ('Apache-2.0', 'https://huggingface.co/ibm-granite/granite-4.0-h-350m-base', 'card'),
    'ibm-granite-granite-4.1': ('Apache-2.0', 'https://huggingface.co/ibm-granite', 'maker'),
    'llama-cpp-rwkv-world': ('MIT', 'https://github.com/ggml-org/llama.cpp/blob/master/LICENSE', 'card'),
    'microsoft-Phi-3.5-mini-instruct': ('MIT', 'https://huggingface.co/microsoft/Phi-3.5-mini-instruct', 'card'),
    'mistralai-Ministral-3-14B-Reasoning-2512': ('Apache-2.0', 'https://huggingface.co/mistralai/Ministral-3-14B-Reasoning-2512', 'card'),
    'mistralai-Mistral-Nemo-Instruct-2407': ('Apache-2.0', 'https://mistral.ai/news/mistral-nemo', 'maker'),
    'openai-gpt-oss-120b': ('Apache-2.0', 'https://huggingface.co/openai/gpt-oss-120b', 'card'),
    'openbmb-MiniCPM5-1B': ('Apache-2.0', 'https://huggingface.co/openbmb/MiniCPM5-1B', 'card'),
    'unsloth-mistral-Devstral-Small-2507': ('Apache-2.0', 'https://huggingface.co/mistralai/Devstral-Small-2507', 'card'),
}

TOOLS = [
    {
        'type': 'function',
        'function': {
            'name': 'get_weather',
            'description': 'The weather “now”, <in> a city & more',
            'parameters': {'type': 'object', 'properties': {'city': {'type': 'string', 'description': 'A city'}, 'unit': {'type': 'string', 'enum': ['C', 'F']}, 'days': {'type': 'integer', 'default': 1}}, 'required': ['city']},
        },
    },
    {'type': 'function', 'function': {'name': 'add', 'description': 'Adds', 'parameters': {'type': 'object', 'properties': {'x': {'type': ['number', 'null']}, 'list': {'type': 'array', 'items': {'type': 'integer'}}}, 'required': []}}},
]

SYSTEM = {'role': 'system', 'content': 'Be brief.\n'}
ASKED = {'role': 'user', 'content': '  What is a 🐈? '}
ANSWER = {'role': 'assistant', 'content': ' An animal.\n'}
CALL = {'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'abcdefghi', 'type': 'function', 'function': {'name': 'get_weather', 'arguments': {'city': 'Paris', 'days': 2}}}]}
RESULT = {'role': 'tool', 'name': 'get_weather', 'tool_call_id': 'abcdefghi', 'content': '{"temperature": 21.5}'}
OPEN = {'addGenerationPrompt': True}

CHATS = [
    ('one', [ASKED], OPEN),
    ('system', [SYSTEM, ASKED], OPEN),
    ('turns', [SYSTEM, ASKED, ANSWER, {'role': 'user', 'content': "And it's “dog”?"}, ANSWER], {}),
    ('thought', [ASKED, {'role': 'assistant', 'content': 'Yes', 'reasoning_content': 'Well,\nhm.'}, ASKED, {'role': 'assistant', 'content': '<think>\nso\n</think>\n\nNo'}, ASKED], OPEN),
    ('tools', [SYSTEM, ASKED], {**OPEN, 'tools': TOOLS}),
    ('called', [SYSTEM, ASKED, CALL, RESULT], {**OPEN, 'tools': TOOLS}),
    ('called twice', [ASKED, {**CALL, 'tool_calls': [*CALL['tool_calls'], {'id': 'bbbbbbbbb', 'type': 'function', 'function': {'name': 'add', 'arguments': {'list': [1, 2], 'x': None}}}]}, RESULT, {**RESULT, 'name': 'add', 'tool_call_id': 'bbbbbbbbb', 'content': '3'}, ANSWER], {'tools': TOOLS}),
    ('called as text', [ASKED, {'role': 'assistant', 'content': None, 'tool_calls': [{'id': 'abcdefghi', 'type': 'function', 'function': {'name': 'get_weather', 'arguments': '{"city": "Paris"}'}}]}, RESULT], OPEN),
    ('image', [{'role': 'user', 'content': [{'type': 'image', 'image': 'a.png'}, {'type': 'text', 'text': 'What is this?'}]}], OPEN),
    ('open', [ASKED, {'role': 'assistant', 'content': 'A cat is '}], {'continueFinalMessage': True}),
    ('open twice', [ASKED, {'role': 'assistant', 'content': 'Yes. </s> Yes.'}], {'continueFinalMessage': True}),
    ('quiet', [ASKED], {**OPEN, 'variables': {'enable_thinking': False, 'thinking': False}}),
    ('loud', [SYSTEM, ASKED], {**OPEN, 'variables': {'enable_thinking': True, 'thinking': True, 'reasoning_effort': 'high'}}),
    ('documents', [ASKED], {**OPEN, 'documents': [{'title': 'Cats', 'text': 'Animals.', 'doc_id': 1}]}),
    ('wrong', [ANSWER, {'role': 'critic', 'content': 'x'}], {}),
]

PYTHON = {'addGenerationPrompt': 'add_generation_prompt', 'continueFinalMessage': 'continue_final_message'}


def published():
    folder = os.environ.get('VOXTORCH_CHAT_TEMPLATES')
    if folder is None:
        return None
    templates = {}
    names = sorted(path.stem for path in Path(folder).glob('*.jinja')) if ALL else PUBLISHED
    for name in names:
        source = (Path(folder) / f'{name}.jinja').read_text()
        cases = []
        for _, messages, options in CHATS:
            given = {PYTHON.get(key, key): value for key, value in options.items() if key != 'variables'}
            cases.append(rendered(source, messages, **given, **options.get('variables', {})))
        templates[name] = {'license': PUBLISHED.get(name, [None])[0], 'template': source, 'cases': cases}
        print(f'{name}: {sum("text" in case for case in cases)} texts, {sum("error" in case for case in cases)} errors')
    chats = [{'name': name, 'messages': messages, 'options': options} for name, messages, options in CHATS]
    whole = {'now': NOW, 'chats': chats, 'templates': templates}
    return gzip.compress(json.dumps(whole).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'templates.json.gz': features, 'published-templates.json.gz': published})
