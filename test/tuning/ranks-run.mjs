// A training of one rank, or alone: `node ranks-run.mjs JSON` with { kind, model, data, options, stopAt }. Prints the trained weights, the
// prompts and answers of each pass in training, the results, and the files that this process has written.
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import * as vt from 'voxtorch'
import { getRank } from 'voxtorch'
import { trainDpo, trainGrpo, trainSft } from 'voxtorch/tuning'

const { kind, model: folder, data, adapters = true, options, stopAt } = JSON.parse(process.argv[2])
/** Paths that this process has put files at. */
const written = []
for (const [owner, name] of [
  ...['rename', 'writeFile', 'mkdir', 'cp'].map((name) => [fs.promises, name]),
  ...['renameSync', 'writeFileSync', 'mkdirSync', 'appendFileSync'].map((name) => [fs, name]),
]) {
  const call = owner[name]
  owner[name] = (...values) => {
    written.push(String(values[name.startsWith('rename') || name === 'cp' ? 1 : 0]))
    return call(...values)
  }
}
syncBuiltinESMExports()
vt.setNumThreads(1)
const model = await vt.DecoderLM.fromPretrained(folder)
const tokenizer = await vt.Tokenizer.fromPretrained(folder)
vt.manualSeed(1)
const peft = adapters ? vt.getPeftModel(model, { r: 2, loraAlpha: 8, targetModules: 'all-linear' }) : model
const passes = []
const forward = model.forward.bind(model)
model.forward = (inputs) => {
  const ids = (inputs.labels ?? inputs.targets)?.toArray().flat().map(Number)
  if (model.training && ids) passes.push(ids.filter((id) => id >= 0))
  return forward(inputs)
}
const logs = []
const onLog = ({ logs: entry }) => logs.push(entry)
const onStepEnd = ({ state }) => {
  if (state.globalStep === stopAt) throw new Error('stopped by the test')
}
const { rewardsThrowOn, throwsInEvaluation = false, generationThrowsOn, ...settings } = options
if (getRank() === generationThrowsOn) model.generate = () => Promise.reject(new Error('not today'))
const capitals = ({ completionIds }) => {
  if (getRank() === rewardsThrowOn && model.training !== throwsInEvaluation) throw new Error('not today')
  return completionIds.filter((id) => id < 91).length / completionIds.length
}
const run = { sft: trainSft, dpo: trainDpo, grpo: trainGrpo }[kind]
let state = {}
const onTrainEnd = ({ state: end }) => {
  state = { samplesSeen: end.samplesSeen, tokensSeen: end.tokensSeen }
}
const results = await run(peft, data, {
  ...{ tokenizer, logSteps: 1, ...settings, ...(kind === 'grpo' && { rewards: capitals }) },
  args: { progress: false, reportTo: ['jsonl'], ...settings.args },
  callbacks: [{ onLog, onStepEnd, onTrainEnd }],
})
const values = vt.scope(() =>
  model.parameters().flatMap((one) => (one.requiresGrad ? one.detach().reshape([-1]).toArray() : [])),
)
const hash = createHash('sha256').update(Float32Array.from(values)).digest('hex')
const losses = logs.map(({ loss }) => loss).filter((loss) => loss !== undefined)
console.log(JSON.stringify({ rank: getRank(), hash, values, passes, results, losses, logs, state, written }))
