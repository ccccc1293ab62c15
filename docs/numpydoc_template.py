"""Compile the template of numpydoc once: it makes an environment of Jinja anew for each of thousands of docstrings."""

from jinja2 import BytecodeCache
from jinja2.sandbox import SandboxedEnvironment
from numpydoc import docscrape_sphinx


class InMemory(BytecodeCache):
    """What has been compiled, by the name and the text of a template."""

    compiled = {}

    def load_bytecode(self, bucket):
        if code := self.compiled.get(bucket.key, {}).get(bucket.checksum):
            bucket.code = code

    def dump_bytecode(self, bucket):
        self.compiled[bucket.key] = {bucket.checksum: bucket.code}


class WithCache(SandboxedEnvironment):
    """An environment that looks there first."""

    def __init__(self, **options):
        super().__init__(bytecode_cache=InMemory(), **options)


def setup(_):
    docscrape_sphinx.SandboxedEnvironment = WithCache
    return {"parallel_read_safe": True, "parallel_write_safe": True}
