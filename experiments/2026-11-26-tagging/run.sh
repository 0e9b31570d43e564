# run.sh DATA RUNS: DATA holds train.jsonl, validation.jsonl and test.jsonl with `tokens` and `tags`; repeating it goes on
for budget in 0.1% 0.5%; do
    OMP_NUM_THREADS=1 peftsearch run --budget $budget --train $1/train.jsonl --validation $1/validation.jsonl \
        --test $1/test.jsonl --bad-rows drop --seeds 3 --baselines full --workers 1 --name atis-${budget%\%} --runs $2
done
