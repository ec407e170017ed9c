/**
 * Build a speech language model from Whisper's encoder and SmolLM2, with a new connector, and its data: spoken prompts, sequences of
 * them, and clips of LibriSpeech. Then train it with the commands `voxtorch sft`, `dpo` and `grpo`, and measure it.
 *
 * `npx tsx examples/audio-lm-small.ts make --asterisk DIR --transcripts FILE [--librispeech DIR] [--whisper NAME] [--llm NAME] [--out DIR]`
 * `npx voxtorch sft --model OUT/model --data OUT/train.jsonl --eval-data OUT/held-out.jsonl --metrics wer --merge --output OUT/sft …`
 * `npx voxtorch dpo --model OUT/sft/model --data OUT/pairs.jsonl --eval-data OUT/held-out-pairs.jsonl --output OUT/dpo …`
 * `npx voxtorch grpo --model OUT/sft/model --data OUT/prompts.jsonl --reward wer --output OUT/grpo …`
 * `npx tsx examples/audio-lm-small.ts score --model OUT/sft/model [--adapter OUT/dpo/adapter] [--out DIR]`
 *
 * DIR of --asterisk is the folder `en_US_f_Allison` of Debian's package `asterisk-core-sounds-en-wav`. FILE has lines of `name: text`: it
 * is `core-sounds-en.txt` of the package `asterisk-core-sounds-en`. DIR of --librispeech has a folder of FLAC files for each speaker; their
 * texts are what Whisper hears. `score` prints word error rates with the right clips, and with each clip in the place of another.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import { type Spoken, writeClips } from './audio-lm-small-data.js'
import { wordErrorRate } from './salmonn-small-words.js'

const { positionals, values: options } = parseArgs({
  allowPositionals: true,
  options: {
    asterisk: { type: 'string' },
    transcripts: { type: 'string' },
    librispeech: { type: 'string' },
    out: { type: 'string', default: 'audio-lm-small' },
    whisper: { type: 'string', default: 'whisper-base' },
    llm: { type: 'string', default: 'smollm2-135m-instruct' },
    model: { type: 'string' },
    adapter: { type: 'string' },
  },
})
const { out, whisper: encoderName, llm } = options
/** The request of `voxtorch transcribe` for this family. */
const REQUEST = 'Repeat the following text, without any explanation: '

/** Write OUT/model, the clips and the records. */
async function make(): Promise<void> {
  const { asterisk, transcripts, librispeech } = options
  if (!asterisk || !transcripts) throw new Error('say where the recordings are: --asterisk DIR --transcripts FILE')
  await saveModel()
  const { train, heldOut } = await writeClips(out, { asterisk, transcripts, librispeech, whisper: encoderName })
  writeRecords('train.jsonl', train.map(conversation))
  writeRecords('held-out.jsonl', heldOut.map(conversation))
  writeRecords('pairs.jsonl', train.map(pair))
  writeRecords('held-out-pairs.jsonl', heldOut.map(pair))
  writeRecords(
    'prompts.jsonl',
    train.map(({ path, text }) => ({ prompt: [question(path)], reference: text })),
  )
  const minutes = train.reduce((sum, { seconds }) => sum + seconds, 0) / 60
  console.log(`${train.length} clips, ${minutes.toFixed(1)} minutes; held out: ${heldOut.length}`)
}

/** Compose an Ultravox: the connector, which stacks eight frames, has random weights. */
async function saveModel(): Promise<void> {
  const encoder = await vt.WhisperEncoder.fromPretrained(encoderName, { dtype: 'float32' })
  const decoder = await vt.DecoderLM.fromPretrained(llm, { quantize: false, dtype: 'float32' })
  const { dModel, encoderLayers, encoderAttentionHeads, encoderFfnDim, numMelBins, maxSourcePositions } = encoder.config
  const sizes = { dModel, encoderLayers, encoderAttentionHeads, encoderFfnDim, numMelBins, maxSourcePositions }
  const textConfig = decoder.config
  const model = vt.AudioLM.fromConfig(
    { modelType: 'ultravox', hiddenSize: 1024, projectorLnMid: true, audioConfig: sizes, textConfig },
    { seed: 0, dtype: 'float32' },
  )
  model.encoder.loadStateDict(encoder.stateDict())
  model.decoder.loadStateDict(decoder.stateDict())
  model.tokenizer = await vt.Tokenizer.fromPretrained(llm)
  await model.save(join(out, 'model'))
}

const question = (path: string) => ({
  role: 'user',
  content: [
    { type: 'text', text: REQUEST },
    { type: 'audio', audio: path },
  ],
})
const answer = (content: string) => [{ role: 'assistant', content }]
const conversation = ({ path, text }: Spoken) => ({ messages: [question(path), ...answer(text)] })
const pair = ({ path, text, wrong }: Spoken) => ({
  ...{ prompt: [question(path)], chosen: answer(text), rejected: answer(wrong) },
})

function writeRecords(name: string, records: readonly object[]): void {
  writeFileSync(join(out, name), records.map((record) => `${JSON.stringify(record)}\n`).join(''))
}

/** Print word error rates on the held-out clips of each kind, with the right clips and with each clip in the place of another. */
async function score(): Promise<void> {
  if (!options.model) throw new Error('say which model: --model DIR')
  const model = await vt.AudioLM.fromPretrained(options.model)
  if (options.adapter) await vt.PeftModel.fromPretrained(model, options.adapter)
  const lines = readFileSync(join(out, 'held-out.jsonl'), 'utf8').trim().split('\n')
  const records = lines.map((line) => JSON.parse(line) as ReturnType<typeof conversation>)
  const clips = records.map(({ messages: [asked] }) => (asked as ReturnType<typeof question>).content[1]!.audio!)
  const said = (
    await model.transcribe(
      clips.map((path) => join(out, path)),
      { batchSize: 8 },
    )
  ).map(({ text }) => text)
  const rights = records.map(({ messages: [, answered] }) => String(answered!.content))
  for (const kind of ['prompts', 'sequences', 'librispeech']) {
    const rows = clips.flatMap((path, i) => (path.startsWith(`clips/${kind}-`) ? [i] : []))
    const rate = (shift: number) =>
      wordErrorRate(rows.map((row, i) => ({ said: said[rows[(i + shift) % rows.length]!]!, right: rights[row]! })))
    if (rows.length > 0) console.log(`${kind}: WER ${rate(0).toFixed(3)}, with other clips ${rate(1).toFixed(3)}`)
  }
  await vt.writeJson(
    join(out, 'answers.json'),
    clips.map((path, i) => ({ path, right: rights[i], said: said[i] })),
    { indent: 2 },
  )
}

if (positionals[0] === 'make') await make()
else if (positionals[0] === 'score') await score()
else throw new Error('say what to do: make or score')
