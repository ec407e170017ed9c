/**
 * Trains EmoVerse in stages, answers a test file and scores the answers. `voxtorch emoverse train`, `infer` and `score` do the same.
 *
 * `npx voxtorch emoverse data --meld MELD --ecf Subtask_1_train.json --output data`, then
 * `npx tsx examples/m2se.ts --stages examples/configs/m2se-first.yaml examples/configs/m2se-second.yaml --output runs/emoverse
 * [--model DIR] [--media read|ignore] [--start-at 2] [--test meld_test_data.json]`
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as ev from 'voxtorch/emoverse'

const text = { type: 'string' } as const
const { values, positionals } = parseArgs({
  options: {
    ...{ stages: { type: 'string', multiple: true }, output: text, model: text, media: text },
    ...{ test: text, 'start-at': text },
  },
  allowPositionals: true,
})
const { model: name = 'smollm2-135m-instruct', output: outputDir, test } = values
// `--stages A B`: words after the first are stages too.
const files = [...(values.stages ?? []), ...positionals]
if (files.length === 0 || outputDir === undefined) throw new vt.ConfigError('Say --stages FILE … and --output DIR')

// A language model by itself reads the words alone.
const { media = name === 'smollm2-135m-instruct' ? 'ignore' : 'read' } = values
// It refuses other words than its own.
using model = await ev.EmoVerse.fromPretrained(name, { media: media as 'read' | 'ignore' })
const startAt = Number(values['start-at'] ?? 1)
const stages = await Promise.all(files.map((file) => ev.readEmoVerseStage(file)))
console.log(await ev.trainEmoVerse(model, { stages, outputDir, startAt, onNote: console.error }))
if (test !== undefined) {
  const { file } = await ev.inferEmoVerse(model, { data: test, output: join(outputDir, 'results'), maxNewTokens: 48 })
  console.log(JSON.stringify(await ev.scoreEmoVerse(file), null, 2))
}
