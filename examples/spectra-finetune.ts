/**
 * Fine-tunes SPECTRA on MOSI, MOSEI, IEMOCAP or MIntRec from the published files, or on recordings of your own:
 *
 * `npx tsx examples/spectra-finetune.ts --task mosi --data DIR --model SPECTRA-base`
 * `npx tsx examples/spectra-finetune.ts --task mood --kind classification --data turns.jsonl --test-speakers ann,bob --config tiny --tokenizer DIR`
 *
 * The best epoch by validation is saved and measured once on the test data. The same command goes on where a killed run was.
 * The original's options (`--lr=2e-5 --batch_size=24 --multi_audio ...`) work too. What was trained answers, one line for
 * each turn of a file of the same form (labels may be left out):
 *
 * `npx tsx examples/spectra-finetune.ts --predict turns.jsonl --model spectra-mood/best`
 */
import { dirname, resolve } from 'node:path'
import * as vt from 'voxtorch'

const { options, ignored } = vt.parseSpectraArguments(process.argv.slice(2))
for (const { flag, reason } of [...ignored, ...vt.unusedSpectraArguments(options)])
  console.log(`${flag} has no effect: ${reason}`)

async function train(): Promise<void> {
  const data = await vt.openSpectraData(...vt.spectraDataOfArguments(options))
  vt.manualSeed(options.seed ?? 42)
  const model = await vt.spectraOfArguments(options, data)
  const results = await vt.finetuneSpectra({ model, data, ...vt.spectraFinetuningOfArguments(options) })
  console.log(vt.spectraReport(results))
}

async function predict(file: string): Promise<void> {
  if (options.model === undefined) throw new Error('say which network shall answer: --model OUTPUT/best')
  const device = options.device ? { device: options.device as vt.Device } : {}
  using classifier = await vt.SpectraClassifier.fromPretrained(options.model, device)
  const clip = (path?: string | null, start?: number, end?: number) =>
    path ? { path: resolve(dirname(file), path), ...(start !== undefined && { start }), ...(end && { end }) } : null
  for await (const record of vt.readJsonl(file)) {
    const turn = record as vt.SpectraJsonlRecord
    const { text, words, history, historyAudio } = turn
    const spoken = { text: text ?? words ?? '', audio: clip(turn.audio, turn.start, turn.end) }
    const before = history && { history, historyAudio: clip(historyAudio, turn.historyStart, turn.historyEnd) }
    const [answer] = await classifier.classify([{ ...spoken, ...before }])
    console.log(JSON.stringify({ ...(turn.id !== undefined && { id: turn.id }), ...answer }))
  }
}

await (options.predict === undefined ? train() : predict(options.predict))
