"""The chat template of an assembled VLM: its language model's own, taught to write where the image stands."""

from typing import Any

IMAGE_TOKEN = "<image>"

# The image comes first, and a few tokens stand before it: readouts of those are the built-in negative control.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Without the system message that templates of ChatML models put before every question about an image."""

_JOINED = (
    "{%- set joined = namespace(messages=[]) -%}{%- for message in messages -%}"
    "{%- set one = namespace(text='') -%}"
    "{%- if message['content'] is string -%}{%- set one.text = message['content'] -%}{%- else -%}"
    "{%- for part in message['content'] -%}{%- set one.text = one.text + "
    "('<image>' if part['type'] == 'image' else part['text']) -%}{%- endfor -%}{%- endif -%}"
    "{%- set joined.messages = joined.messages + [{'role': message['role'], 'content': one.text}] -%}"
    "{%- endfor -%}{%- set messages = joined.messages -%}"
)
"""Turns contents of several parts into one text each, for a template that knows texts only."""

_PLAIN = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message['role'].capitalize() + ': ' + message['content'] }}"
    "{{ '\n' if message['role'] == 'user' else (eos_token or '') + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For a model that was never taught to chat."""


def chat_template(tokenizer: Any) -> str:
    """Write the template for an LLM with this tokenizer.

    One that speaks ChatML (`<|im_start|>`) gets the bare form of it, another its own, and one that has none
    `User: ... Assistant:`.
    """
    own = tokenizer.chat_template
    if "<|im_start|>" in tokenizer.get_vocab():
        return CHATML
    return _JOINED + (own if isinstance(own, str) else _PLAIN)
