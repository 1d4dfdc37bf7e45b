import logging

# bitsandbytes, which peft imports, warns that an optional CPU kernel is absent; nothing here needs it, since weights are
# decoded on a CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
