#!/bin/sh
# Everything is written below the folder given as $1.
set -e
export OMP_NUM_THREADS=1
here=$(dirname "$0")
python "$here/make.py" "$1"
cd "$1"
images() { echo "--kind image --train $1/train --validation $1/validation"; }
# What plays the part of a pretrained model: all weights trained on the digits 0 to 4.
peftsearch train --method full --model untrained $(images pretraining) --learning-rate 1e-3 --epochs 30 \
    --device cpu --output pretrained
# The digits 5 to 9 with 2% of the backbone's parameters.
peftsearch run --budget 2% --model pretrained $(images task) --test task/test --strategy random --trials 10 \
    --steps 120 --search-steps 40 --seeds 3 --device cpu --name digits
peftsearch report runs/digits
# References: all weights, from the pretrained and from the untrained model.
for start in pretrained untrained; do
    peftsearch train --method full --model $start $(images task) --test task/test --learning-rate 1e-3 --steps 120 \
        --seeds 3 --device cpu --output full-from-$start
done
# What was found, trained in full, scored and used.
peftsearch train runs/digits --steps 240 --device cpu --output winner
peftsearch evaluate winner
peftsearch predict winner --input task/test --output predictions.csv
