import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { writeAtomicallySync } from '../../../base/atomic.js'
import { defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device, DType } from '../../../tensor/index.js'
import type { TrajectoryDialog } from '../answer/trajectory-dialogs.js'
import type { EmotionalTrajectory } from '../answer/trajectory-report.js'
import { printIgnored, SALMONN_OPTIONS } from '../configuration/arguments.js'
import type { SalmonnDatasetOptions } from '../data/dataset.js'

const { config, options, model, device, dtype } = SALMONN_OPTIONS

const EXAMPLE =
  '  voxtorch salmonn trajectory --model runs/salmonn/model ann=1.wav bob=2.wav ann=3.wav --figure keys.html' // language: option name

export const trajectory = commandRule({
  name: 'trajectory',
  summary: "Predict each speaker's emotions over a dialog: as text, as JSON, and as a figure.",
  details: `${EXAMPLE}
  voxtorch salmonn trajectory --model runs/salmonn/model task1_3.jsonl --dialog zh_0102_0001 --json one.json
  voxtorch salmonn trajectory --model runs/salmonn/model test.json --json answers.jsonl

A dialog is a file of the challenge (JSON Lines), the output of 'salmonn convert' (JSON), or a list of clips, each with its speaker. All
dialogs of a file are predicted, or the one that --dialog names; --json then has a line for each, as input of 'salmonn score'. Dialogs are
prepared with the settings that 'salmonn train' stored with the model; --config and --options change them, such as
data.gapSeconds=0.5. A model that was not trained to write a line of emotions answers one question per turn.`,
  files: 'DIALOGS.json|SPEAKER=CLIP ...',
  options: {
    ...{ model, config, device, dtype },
    options: {
      ...options,
      help: 'changes to the configuration, such as data.gapSeconds=0.5; repeat the option for each',
      oneEach: true,
    },
    dialog: { type: 'string', help: 'id of a dialog, in a file with several', placeholder: 'id' },
    json: { type: 'string', help: 'file for the predictions, .json or .jsonl', placeholder: 'file' },
    figure: { type: 'string', help: 'file for a figure of one dialog, .svg or .html', placeholder: 'file' },
    audioRoot: { type: 'string', help: 'base folder of relative clip paths', placeholder: 'dir' },
    perTurn: { type: ['missing', 'always', 'never'], help: 'when to predict each turn separately', default: 'missing' },
    labels: { type: 'list', help: 'emotions to search for in answers' },
    maxNewTokens: { type: 'integer', help: 'maximum number of tokens of an answer', default: 200 },
    quiet: { type: 'boolean', help: 'print no progress' },
  },
  async run(values, files) {
    const { json, figure, model: from } = values
    const dialogs = await dialogsOf(files, values)
    const missing = dialogs.flatMap(({ entry }) => entry.audio).find((path) => !existsSync(path))
    if (missing !== undefined)
      throw new ConfigError(`salmonn trajectory: expected an existing audio file, got ${missing}.`, { file: missing })
    if (figure !== undefined && !/\.(svg|html)$/i.test(figure)) {
      throw new ConfigError(`--figure: expected a file .svg or .html, got ${figure}.`, { argument: 'figure' }) // language: option name
    }
    if (figure !== undefined && dialogs.length > 1) {
      throw new ConfigError(
        `--figure: expected one dialog, got ${dialogs.length}. Select one, such as --dialog ${dialogs[0]?.id}.`, // language: option name
        { argument: 'figure' },
      )
    }
    const trained = join(from ?? '.', 'data.json')
    const file = values.config ?? (from !== undefined && existsSync(trained) ? trained : undefined)
    if (from === undefined && file === undefined) {
      throw new ConfigError('--model: expected a model, got none. Pass --model DIR or --config FILE.', {
        argument: 'model',
      })
    }
    const { readSalmonnConfiguration, salmonnConfiguration } = await import('../configuration/read.js')
    const configuration =
      file === undefined
        ? await salmonnConfiguration({}, values.options, '--options')
        : await readSalmonnConfiguration(file, values.options)
    const { salmonnOfConfiguration } = await import('../configuration/apply.js')
    const { salmonnDatasetOptions } = await import('../data/open.js')
    const { SalmonnPrompts } = await import('../data/prompt-table.js')
    const { predictTrajectory } = await import('../answer/trajectory.js')
    const { trajectoryText } = await import('../answer/trajectory-report.js')
    const { data: settings, compat } = configuration
    const generation = { ...configuration.generation, ...defined({ maxNewTokens: values.maxNewTokens }) }
    if (!values.quiet) console.error(`loading ${from ?? file} …`)
    using model = await salmonnOfConfiguration(configuration, {
      ...defined({ model: from, device: values.device as Device | undefined }),
      dtype: (values.dtype ?? 'bfloat16') as DType,
    })
    printIgnored(configuration)
    const prompts = settings.testPrompts ?? settings.prompts
    const data: SalmonnDatasetOptions = {
      ...salmonnDatasetOptions(settings),
      ...(prompts !== undefined && { prompts: await SalmonnPrompts.load(prompts) }),
      ...(compat && { compat }),
    }
    const { perTurn = 'missing', labels = [] } = values
    const trajectories: EmotionalTrajectory[] = []
    for (const [i, dialog] of dialogs.entries()) {
      using progress = values.quiet ? undefined : new Waiting(`dialog ${i + 1} of ${dialogs.length}`)
      const onQuestion = (about: 'dialog' | 'turns', count: number) =>
        progress?.begin(about === 'dialog' ? 'the whole dialog' : `its ${count} turns`)
      const one = await predictTrajectory(model, dialog, { data, generation, perTurn, labels, onQuestion })
      progress?.[Symbol.dispose]()
      trajectories.push(one)
      console.log(`${trajectoryText(one)}\n`)
      if (one.emotionsFrom === 'turns' && perTurn !== 'always') {
        console.error(
          `${dialog.id}: the answer did not have an emotion for each turn, so each turn was predicted separately`,
        )
      }
    }
    if (json !== undefined) await write(json, trajectories)
    if (figure !== undefined) await draw(figure, trajectories[0] as EmotionalTrajectory)
    return 0
  },
})

/** Prints the current question on stderr, and every ten seconds the elapsed time. */
class Waiting {
  #timer: NodeJS.Timeout | undefined
  constructor(readonly label: string) {}

  begin(about: string): void {
    clearInterval(this.#timer)
    const [text, started] = [`${this.label}: asking about ${about} …`, performance.now()]
    console.error(text)
    const seconds = () => Math.round((performance.now() - started) / 1000)
    this.#timer = setInterval(() => console.error(`${text} ${seconds()} s`), 10_000)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

async function dialogsOf(
  files: readonly string[],
  { audioRoot, dialog }: { audioRoot?: string; dialog?: string },
): Promise<TrajectoryDialog[]> {
  const { dialogOfClips, readTrajectoryDialogs } = await import('../answer/trajectory-dialogs.js')
  const [file = ''] = files
  if (files.length === 0) {
    throw new ConfigError(
      'salmonn trajectory: expected a .json or .jsonl file, or clips such as ann=1.wav bob=2.wav, got no arguments.',
      {},
    )
  }
  if (files.length > 1 || !/\.jsonl?$/i.test(file)) {
    const clips = files.map((input) => /^(?:([^=]+)=)?(.+)$/s.exec(input) as RegExpExecArray)
    return [dialogOfClips(clips.map(([, speaker = 'speaker', audio]) => ({ speaker, audio: audio as string })))]
  }
  const { dialogs } = await readTrajectoryDialogs(file, defined({ audioRoot }))
  if (dialog === undefined) return dialogs
  const found = dialogs.filter(({ id }) => id === dialog)
  if (found.length === 0)
    throw new ConfigError(`${file}: expected a dialog ${dialog}, got none. Check --dialog.`, {
      file,
      argument: 'dialog',
    })
  return found
}

async function write(file: string, trajectories: readonly EmotionalTrajectory[]): Promise<void> {
  const { writeJson } = await import('../../../files/json/json.js')
  const { writeJsonl } = await import('../../../files/json/jsonl.js')
  if (/\.jsonl$/i.test(file)) await writeJsonl(file, trajectories)
  else await writeJson(file, trajectories.length === 1 ? trajectories[0] : trajectories)
}

async function draw(file: string, drawn: EmotionalTrajectory): Promise<void> {
  const { trajectoryPage } = await import('../answer/trajectory-page.js')
  const { trajectorySvg } = await import('../answer/trajectory-figure.js')
  const title = `Emotional trajectory: ${drawn.id}`
  writeAtomicallySync(
    file,
    DataError,
    /\.svg$/i.test(file) ? trajectorySvg(drawn, title) : trajectoryPage(drawn, title),
  )
}
