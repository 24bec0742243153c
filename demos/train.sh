#!/usr/bin/env bash
# A language model from nothing, on this machine's own Python files: a tokeniser, then a model that is trained for some minutes,
# judged on packages that neither has seen beside xz -9, and asked to go on with some lines.
#
#   demos/train.sh [CLSPLAT] [TIME]        build/clsplat and 19m if they are not given: 20 minutes with all the rest
set -euo pipefail
clsplat=${1:-build/clsplat} time=${2:-19m}
demos=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/learn" "$work/unseen" "$work/tokenizer"

# Every file of the standard library is learned from, but for these packages, which are for judging.
library=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
unseen='asyncio|email|http|json|logging|unittest|xml'
number=0
while read -r file; do
  number=$((number + 1))
  if [[ $file =~ ^$library/($unseen)/ ]]; then cp "$file" "$work/unseen/$number.py"; else cp "$file" "$work/learn/$number.py"; fi
done < <(find "$library" -name '*.py' -not -path '*/site-packages/*' -not -path '*/dist-packages/*' -not -path '*/test*/*' | sort)

# Tokens of three bytes on average: three times as much text in the same time as byte by byte.
"$demos/tokenizer.py" 2048 "$work/tokenizer/tokenizer.json" "$work"/learn/*.py

# As large as two cores can show all of these files four times in that time; the last 0.4 of it at a falling learning rate.
cat > "$work/model.json" << 'JSON'
{"vocab_size": 2048, "hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 5, "intermediate_size": 448,
 "max_position_embeddings": 512, "training": {"context": 512, "batch_size": 4, "learning_rate": 0.004, "warmup": 0.02,
 "schedule": "wsd", "cooldown": 0.4, "final_rate": 0.02}}
JSON
"$clsplat" train "$work/learn" -o "$work/model" --config "$work/model.json" --tokenizer "$work/tokenizer" --budget "$time" --validation "$work/unseen"

# The model reads windows of 512 tokens, each for itself; xz sees a whole file, and then all of them as one.
cat "$work"/unseen/*.py > "$work/all"
echo
"$clsplat" eval "$work/model" "$work/all" --context 512
each=0
for file in "$work"/unseen/*.py; do each=$((each + $(xz -9e -c "$file" | wc -c))); done
awk -v each="$each" -v all="$(xz -9e -c "$work/all" | wc -c)" -v of="$(wc -c < "$work/all")" \
  'BEGIN { printf "xz -9e: %.4f bits/byte file by file, %.4f with all %d bytes in one\n", 8 * each / of, 8 * all / of, of }'
echo
"$clsplat" generate "$work/model" --prompt $'class Parser:\n    """Reads a file, line by line."""\n\n    def __init__(self' -n 300 --temperature 0.7 --seed 1
