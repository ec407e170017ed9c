import { defined } from '../../../base/check.js'
import { commandRule } from '../../../kit/command.js'
import { EMOVERSE_MODEL_OPTIONS, EMOVERSE_TRAINING_OPTIONS } from '../configuration/arguments.js'
import { TRAINING_SETTINGS } from '../configuration/settings.js'
import { SWIFT_ORIGINAL_OPTIONS } from '../published/swift.js'

export const sft = commandRule({
  name: 'train',
  aliases: ['sft'],
  summary: 'Train EmoVerse on instruction data in one or several stages, with the option names of swift sft.',
  details: `  voxtorch emoverse train --model InternVL2-2B --stages first.yaml second.yaml --vision-cache features --output runs/emoverse
  voxtorch emoverse train --model smollm2-135m-instruct --media ignore --stages first.yaml second.yaml --output runs/words
  voxtorch emoverse train --model_id_or_path DIR --dataset emt_data_first.json --sft_type lora --num_train_epochs 2 --output_dir output

Each stage trains a new adapter on the result of the previous stages. OUTPUT/model is the model with all adapters merged, for the
--model of a later run. OUTPUT/stage-1/adapter is the first adapter, in PEFT's layout. tasks.jsonl next to the checkpoints has loss,
accuracy and time of each task. The same command continues a killed run. Other settings, data or another model get a new folder
OUTPUT/v1, OUTPUT/v2, …, which is reported. A text-only language model needs --media ignore.`,
  options: { ...EMOVERSE_MODEL_OPTIONS, ...EMOVERSE_TRAINING_OPTIONS },
  originalOptions: SWIFT_ORIGINAL_OPTIONS,
  async run(values) {
    const { output = 'output', progress, maxSteps, groupByLength } = values
    const { emoverseOfArguments, stagesOfArguments } = await import('../configuration/apply.js')
    const { trainEmoVerse } = await import('../training/train.js')
    const stages = await stagesOfArguments(values)
    using model = await emoverseOfArguments(values)
    const results = await trainEmoVerse(model, {
      ...{ stages, outputDir: output, versions: true, onNote: (note: string) => console.error(note) },
      ...TRAINING_SETTINGS.fromOptions(values),
      args: defined({ progress, maxSteps, groupByLength }),
    })
    console.log(JSON.stringify(results, null, 2))
    return 0
  },
})
