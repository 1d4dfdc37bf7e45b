import os

# bitsandbytes loads torch's compiler, a second of every start, for functions that nothing here calls. Not in `darec`,
# whose other users may well compile.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
