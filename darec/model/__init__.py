import logging

# bitsandbytes, which peft imports, warns that an optional CPU kernel is absent; nothing here needs it, for on a CPU
# weights are decoded.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
