"""Random templates of a grammar, rendered by jinja2 with transformers' environment: expressions and statements of all kinds.

`text_templates.py` has the variables. What prints an address, is long, or recurses without end is left out, and so is what
jinja2 only gives for constants that it folds before the template runs: a slice of a number is undefined there.
"""

import copy
import gzip
import json
import random
import warnings

from transformers.utils.chat_template_utils import _cached_compile_jinja_template

from text_common import main
from text_templates import MESSAGES, VARIABLES

COUNT = 600
RANDOM = random.Random(20260705)
choice = RANDOM.choice
NAMES = ['text','padded','lines','emoji','items','words','mixed','people','d','nothing','yes','empty','half','tree','html','messages','zz','x']
TEXTS = ['""','"a"','"aXb c"',"'it\\'s'",'"1"','"-2.5"','"  "','"é😀"','"a,b,,c"','"%s-%d"','"{} {0}"','"ß"','"<b>"']
NUMBERS = ['0','1','2','3','-1','7','2.5','0.1','1e3','10','-3','1e20','100000000000000000000']
METHODS = ['upper()','lower()','strip()','strip("a ")','lstrip("H")','rstrip()','split()','split(",")','split("a",1)','rsplit(" ",1)','title()','capitalize()','swapcase()','replace("a","b")','replace("","-")','find("a")','rfind("a")','count("a")','startswith("a")','endswith(("a","d"))','splitlines()','splitlines(true)','partition(" ")','rpartition(" ")','isdigit()','isalpha()','islower()','zfill(6)','center(9,"*")','ljust(8)','rjust(8)','join(["x","y"])','join(items)','items()','keys()','values()','get("a")','get("zz",1)','index(1)','count(1)','expandtabs(3)','removeprefix("H")','format(1,2)','casefold()','isspace()','istitle()','encode()','append(1)','copy()','isnumeric()','isupper()','isalnum()','nope()','name','role','a','b','0','zz','__class__','content','index("a")','find("a",1,3)','count("")','real','is_integer()']
FILTERS = ['abs','batch(2)|list','batch(2,0)|list','capitalize','center(9)','count','default("D")','default("D",true)','d(1)','dictsort','dictsort(true)','dictsort(by="value")','e','escape','first','float','float(1)','format(1)','groupby("age")','indent','indent(2,true)','int','int(5)','int(0,16)','items|list','join','join(",")','join("-",attribute="name")','last','length','list','lower','map("upper")|list','map(attribute="name")|list','map(attribute="zz",default=1)|list','map("string")|list','max','min','max(attribute="age")','reject("odd")|list','reject|list','rejectattr("age")|list','replace("a","b")','replace("a","b",1)','reverse','reverse|list','round','round(1)','round(1,"floor")','round(-1)','safe','select("string")|list','select|list','selectattr("name")|list','selectattr("age","gt",26)|list','slice(2)|list','slice(3,"z")|list','sort','sort(true)','sort(attribute="name")','string','sum','sum(attribute="age")','title','tojson','tojson(indent=2)','tojson(sort_keys=true)','trim','trim("a")','truncate(5)','truncate(6,true)','unique|list','upper','urlencode','wordcount','wordwrap(5)','xmlattr','forceescape','filesizeformat','attr("upper")','length|string','unique(true)|list','map("length")|list','map("first")|list','select("in",[1,"b"])|list','map("default","q")|list','map("int")|list','map("tojson")|list']
TESTS = ['odd','even','divisibleby 3','defined','undefined','none','boolean','true','false','integer','float','lower','upper','string','mapping','number','sequence','iterable','callable','sameas none','escaped','in items','in "abc"','eq 1','ne "a"','gt 1','lt 2.5','ge 0','le 3','eq [1]','filter','test','equalto 2']
OPERATORS = ['+','-','*','/','//','%','**','~','==','!=','<','>','<=','>=','in','not in','and','or']


def expression(depth):
    r=RANDOM.random()
    if depth <= 0 or r < .12:
        return choice([choice(NAMES),choice(NAMES),choice(TEXTS),choice(NUMBERS),'[]','{}','()','true','false','none','loop.index','range(3)','ns.v'])
    if r<.3:
        op=choice(OPERATORS); a,b=expression(depth - 1),expression(depth - 1)
        if op=='**': a,b=choice(NUMBERS[:9]),choice(['2','3','0','0.5','-1'])
        if op=='*' : b=choice(['2','3','-1','0','1.5',b if len(b)<8 else '2'])
        return choice(['({} {} {})','({} {} {})','{} {} {}']).format(a,op,b)
    if r<.45: return '({}).{}'.format(expression(depth - 1),choice(METHODS))
    if r<.65: return '({})|{}'.format(expression(depth - 1),choice(FILTERS))
    if r<.73: return '({} is {}{})'.format(expression(depth - 1),choice(['','not ']),choice(TESTS))
    if r<.79: return '({}{})'.format(choice(['-','+','not ']),expression(depth - 1))
    if r<.85: return '({})[{}]'.format(expression(depth - 1),choice([expression(depth - 2),'0','-1','"a"','-2:','::2','9']))
    if r<.89: return '[{}, {}]'.format(expression(depth - 1),expression(depth - 1))
    if r<.92: return '{{{}: {}, "k": {}}}'.format(choice(TEXTS+NUMBERS),expression(depth - 1),expression(depth - 1))
    if r<.95: return '({} if {} else {})'.format(expression(depth - 1),expression(depth - 1),expression(depth - 1))
    if r<.97: return '({}, {})'.format(expression(depth - 1),expression(depth - 1))
    return choice(['"%s" % ({})','"%s|%r|%5.1f" % ({},1,2)','"{{!r:>8}}".format({})','m({})','dict(a={})','"%d" % ({})','"{{:05.1f}}".format({})','"{{}}".format({})','"%6.2f|%-8s|" % (2.345, {})','"{{:,}}".format({})','"%x" % ({})','"{{:>10}}|".format({})','"%g" % ({})','"{{:e}}".format({})','"{{:g}}".format({})','"{{:.3}}".format({})']).format(expression(depth - 1))


def blanks(): return choice(['',' ','\n','  \n ','a\n','x '])


def tag(s): return '{%'+choice(['','','-','+'])+' '+s+' '+choice(['','','-','+'])+'%}'


def statement(depth):
    r=RANDOM.random()
    if depth <= 0 or r < .45: return '{{'+choice(['','-',' '])+' '+expression(3)+' '+choice(['','-'])+'}}'
    if r<.55: return tag('if '+expression(2))+body(depth - 1)+(tag('elif '+expression(2))+body(depth - 1) if RANDOM.random()<.3 else '')+(tag('else')+body(depth - 1) if RANDOM.random()<.5 else '')+tag('endif')
    if r<.72: return tag('for '+choice(['i','x','i, x','a, b'])+' in '+choice([expression(2),'items','people','d.items()','range(3)','messages','[[1,2],[3,4]]'])+(' if '+expression(1) if RANDOM.random()<.25 else ''))+body(depth - 1)+choice(['','{{ loop.last }}','{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }}','{% if loop.index == 2 %}{% break %}{% endif %}','{% if loop.first %}{% continue %}{% endif %}','{{ loop.cycle("p","q") }}','{{ loop.changed(i) }}'])+body(depth - 1)+(tag('else')+body(depth - 1) if RANDOM.random()<.3 else '')+tag('endfor')
    if r<.80: return tag('set '+choice(['x','i','ns.v','x, i'])+' = '+expression(3))
    if r<.84: return tag('set x')+body(depth - 1)+tag('endset')
    if r<.87: return tag('filter '+choice(['upper','trim','replace("a","b")','indent']))+body(depth - 1)+tag('endfilter')
    if r<.90: return tag('with x = '+expression(2))+body(depth - 1)+tag('endwith')
    if r<.93: return tag('macro m(a, b='+expression(1)+')')+body(depth - 1)+tag('endmacro')+'{{ m('+expression(1)+') }}'
    if r<.96: return tag('call m('+expression(1)+')')+body(depth - 1)+tag('endcall')
    return '{#'+choice(['-',''])+' c '+choice(['-',''])+'#}'


def body(depth): return ''.join(blanks()+statement(depth) for _ in range(RANDOM.randint(1,2)))+blanks()


PRELUDE = '{% macro m(a, b=1) %}[{{ a }}{{ b }}{{ caller() if caller else "" }}]{% endmacro %}{% set ns = namespace(v=0) %}'


def case():
    template = PRELUDE + body(RANDOM.randint(1, 3)) if RANDOM.random() < 0.5 else f'{{{{ {expression(4)} }}}}'
    try:
        given = copy.deepcopy({**VARIABLES, 'messages': MESSAGES})
        return {'template': template, 'text': _cached_compile_jinja_template(template).render(**given)}
    except Exception as error:
        return {'template': template, 'error': type(error).__name__}


def is_kept(one):
    folded = any(part in one['template'] for part in ('[1:]', '[::-1]', '[:2]', '[-2:]', '[::2]'))
    return one.get('error') != 'RecursionError' and not folded and len(one.get('text', '')) < 2000 and ' at 0x' not in one.get('text', '')


def fuzz():
    warnings.simplefilter('ignore')
    cases = []
    while len(cases) < COUNT:
        one = case()
        if is_kept(one):
            cases.append(one)
    return gzip.compress(json.dumps({'messages': MESSAGES, 'variables': VARIABLES, 'cases': cases}).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'random-templates.json.gz': fuzz})
