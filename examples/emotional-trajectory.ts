/**
 * Tells how each speaker's emotion goes through a dialog: as text, as JSON, and as a picture.
 *
 * `npx tsx examples/emotional-trajectory.ts --model runs/salmonn/model ann=1.wav bob=2.wav ann=3.wav --picture keys.html`
 * `npx tsx examples/emotional-trajectory.ts --model runs/salmonn/model task1_3.jsonl --dialog zh_0102_0001 --json one.json`
 * `npx tsx examples/emotional-trajectory.ts --model runs/salmonn/model test.json --json answers.jsonl`
 *
 * A dialog is a file of the challenge (JSON Lines), what the convert step made of it (JSON), or clips, each with its speaker
 * before it. Of a file with several dialogs all are told, or the one that `--dialog` names; `--json` then has a line for each,
 * which emotional-trajectory-score.ts scores. Dialogs are heard as salmonn-train.ts wrote down beside the model; `--config FILE`,
 * and `--options key=value` as often as needed, say otherwise, such as `data.gapSeconds=0.5`. A model that was not trained to
 * write a line of emotions is asked about each turn; `--per-turn always` or `never` decides that.
 */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'

const text = { type: 'string' } as const
const { values: given, positionals: inputs } = parseArgs({
  allowPositionals: true,
  options: {
    model: text,
    config: text,
    'cfg-path': text,
    options: { type: 'string', multiple: true },
    device: text,
    dtype: text,
    dialog: text,
    json: text,
    picture: text,
    'audio-root': text,
    'per-turn': text,
    labels: text,
  },
})

async function dialogsOf(): Promise<vt.TrajectoryDialog[]> {
  if (inputs.length === 0)
    throw new Error('say which dialog: a .json or .jsonl file, or clips such as ann=1.wav bob=2.wav')
  const [file = ''] = inputs
  if (inputs.length > 1 || !/\.jsonl?$/i.test(file)) {
    const clips = inputs.map((input) => /^(?:([^=]+)=)?(.+)$/.exec(input) as RegExpExecArray)
    return [vt.dialogOfClips(clips.map(([, speaker = 'speaker', audio]) => ({ speaker, audio: audio as string })))]
  }
  const audioRoot = given['audio-root']
  const { dialogs } = await vt.readTrajectoryDialogs(file, audioRoot === undefined ? {} : { audioRoot })
  if (given.dialog === undefined) return dialogs
  const found = dialogs.filter(({ id }) => id === given.dialog)
  if (found.length === 0) throw new Error(`${file} has no dialog ${given.dialog}`)
  return found
}

const dialogs = await dialogsOf()
const missing = dialogs.flatMap(({ entry }) => entry.audio).find((path) => !existsSync(path))
if (missing !== undefined) throw new Error(`there is no sound file ${missing}`)
const { picture, json } = given
if (picture !== undefined && !/\.(svg|html)$/i.test(picture)) throw new Error('--picture takes a file .svg or .html')
if (picture !== undefined && dialogs.length > 1) {
  throw new Error(
    `a picture is of one dialog, and there are ${dialogs.length}: say --dialog ${dialogs[0]?.id}, or another`,
  )
}
const trained = join(given.model ?? '.', 'data.json')
const config =
  given.config ?? given['cfg-path'] ?? (given.model !== undefined && existsSync(trained) ? trained : undefined)
const configuration =
  config === undefined
    ? await vt.salmonnConfiguration({}, given.options, '--options')
    : await vt.readSalmonnConfiguration(config, given.options)
const { data: settings, generation, compat } = configuration
const dtype = (given.dtype ?? 'bfloat16') as vt.DType
const device = given.device === undefined ? {} : { device: given.device as vt.Device }
if (given.model === undefined && config === undefined) throw new Error('say which model: --model DIR or --config FILE')
using model = await vt.salmonnOfConfiguration(configuration, { dtype, ...device, model: given.model })
const prompts = settings.testPrompts ?? settings.prompts
const data: vt.SalmonnDatasetOptions = {
  ...vt.salmonnDatasetOptions(settings),
  ...(prompts !== undefined && { prompts: await vt.SalmonnPrompts.load(prompts) }),
  ...(compat && { compat }),
}

const trajectories: vt.EmotionalTrajectory[] = []
for (const dialog of dialogs) {
  const trajectory = await vt.tellTrajectory(model, dialog, {
    data,
    generation,
    perTurn: (given['per-turn'] ?? 'missing') as 'missing',
    labels: given.labels?.split(',') ?? [],
  })
  trajectories.push(trajectory)
  console.log(`${vt.trajectoryText(trajectory)}\n`)
  if (trajectory.emotionsFrom === 'turns' && given['per-turn'] !== 'always') {
    console.error(`${dialog.id}: the answer had no emotion for each turn, so each turn was asked about`)
  }
}
if (json !== undefined) {
  if (/\.jsonl$/i.test(json)) await vt.writeJsonl(json, trajectories)
  else await vt.writeJson(json, trajectories.length === 1 ? trajectories[0] : trajectories)
}
if (picture !== undefined) {
  const [trajectory] = trajectories as [vt.EmotionalTrajectory]
  const title = `Emotional trajectory: ${trajectory.id}`
  await writeFile(
    picture,
    /\.svg$/i.test(picture) ? vt.trajectorySvg(trajectory, title) : vt.trajectoryPage(trajectory, title),
  )
}
