import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_MODEL_OPTIONS, EMOVERSE_TRAINING_OPTIONS } from '../configuration/arguments.js'
import { SWIFT_FOREIGN } from '../published/swift.js'

export const sft = commandRule({
  name: 'sft',
  summary: 'Trains EmoVerse on instruction data, one stage or several, with the names of swift sft.',
  details: `  voxtorch emoverse sft --model InternVL2-2B --stages first.yaml second.yaml --vision-cache features --output runs/emoverse
  voxtorch emoverse sft --model smollm2-135m-instruct --media ignore --stages first.yaml second.yaml --output runs/words
  voxtorch emoverse sft --model_id_or_path DIR --dataset emt_data_first.json --sft_type lora --num_train_epochs 2 --output_dir output

Each stage trains a fresh adapter on what those before it made; OUTPUT/model is the whole model with all of them, which the next stage's
--model takes, and OUTPUT/stage-1/adapter is in PEFT's layout. The same command goes on where a killed run was;
another one on the same OUTPUT, with another model, other data or other settings, goes to OUTPUT/v1, v2, … and says so. Loss, accuracy and time of
each task stand in tasks.jsonl beside the checkpoints. A language model by itself reads the words alone.`,
  options: { ...EMOVERSE_MODEL_OPTIONS, ...EMOVERSE_TRAINING_OPTIONS },
  foreign: SWIFT_FOREIGN,
  async run(given) {
    const {
      output = 'output',
      startAt,
      mediaRoot,
      visionCache,
      compat,
      progress,
      maxSteps,
      groupByLength,
      onBadRecord,
    } = given
    const { emoverseOfArguments, stagesOfArguments } = await import('../configuration/apply.js')
    const { trainEmoVerse } = await import('../training/train.js')
    const stages = await stagesOfArguments(given)
    using model = await emoverseOfArguments(given)
    const results = await trainEmoVerse(model, {
      ...{ stages, outputDir: output, versions: true, onNote: (note: string) => console.error(note) },
      ...defined({ startAt, mediaRoot, visionCache, compat, onBadRecord }),
      args: defined({ progress, maxSteps, groupByLength }),
    })
    console.log(JSON.stringify(results, null, 2))
    return 0
  },
})
