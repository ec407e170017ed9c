import { parseArgs } from 'node:util'

const HELP = `voxtorch salmonn-convert IN.jsonl [IN.jsonl ...] OUT.json [options]

Makes training data of the dialogs of the HumDial challenge: a JSON list that SALMONN's training, evaluation and scoring read.
With --valid or --test whole dialogs are divided, those that share sound files together: OUT.valid.json and OUT.test.json
stand beside OUT.json, which then has the rest.

  --valid SHARE            of the dialogs, such as 0.1; default 0
  --test SHARE             default 0
  --seed N                 of what is drawn, default 42
  --valid-speakers A,B     hold out whoever speaks in these; --test-speakers likewise
  --language zh|en         of the request; default: that of the dialog
  --style labelled|plain   labelled (default) says whose words each line holds; plain has the bare lines, as the published file
  --task NAME              default task1_emotional_trajectory
  --skip-bad               leaves out dialogs that cannot be used, and counts them; else the first one ends it
  --help

Silence between clips is not written into the data: the training's data.gapSeconds says it.`

/** What follows `salmonn-convert` on the command line; null where help is asked for. Throws TypeError for what cannot be. */
export function parseConvert(argv: string[]) {
  const text = { type: 'string' } as const
  const { positionals, values } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: {
      valid: text,
      test: text,
      seed: text,
      'valid-speakers': text,
      'test-speakers': text,
      language: text,
      style: text,
      task: text,
      'skip-bad': { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return null
  const [output, ...inputs] = [...positionals].reverse()
  if (output === undefined || inputs.length === 0) {
    throw new TypeError('salmonn-convert: say IN.jsonl and OUT.json. See `voxtorch salmonn-convert --help`.')
  }
  if (inputs.includes(output)) throw new TypeError(`salmonn-convert: ${output} cannot be input and output.`)
  const names = (list?: string) => list?.split(',').filter((name) => name !== '')
  const options = {
    valid: share('valid', values.valid),
    test: share('test', values.test),
    seed: whole('seed', values.seed),
    validSpeakers: names(values['valid-speakers']),
    testSpeakers: names(values['test-speakers']),
    language: oneOf('language', values.language, ['zh', 'en'] as const),
    style: oneOf('style', values.style, ['labelled', 'plain'] as const),
    task: values.task,
    onBadItem: values['skip-bad'] ? ('skip' as const) : ('stop' as const),
  }
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return { inputs: inputs.reverse(), output, options: Object.fromEntries(given) as Given<typeof options> }
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Converts, says what came of it, and returns the exit code. */
export async function convertCommand(argv: string[]): Promise<number> {
  const command = parseConvert(argv)
  if (command === null) {
    console.log(HELP)
    return 0
  }
  const { convertHumDialFile } = await import('../systems/salmonn/data/convert.js')
  const found = await convertHumDialFile(command.inputs, command.output, command.options)
  for (const { file, dialogs } of found.files) console.log(`${file}: ${dialogs} dialog${dialogs === 1 ? '' : 's'}`)
  const { withoutTarget, withoutEmotions, badItems, badItemErrors, missingAudio } = found
  if (withoutTarget > 0) console.log(`${withoutTarget} have no last reply: they can be asked, but not learnt from`)
  if (withoutEmotions > 0) console.log(`${withoutEmotions} do not tell all emotions`)
  if (badItems > 0) console.log(`${badItems} left out; the first: ${badItemErrors[0]?.message}`)
  if (missingAudio.count > 0) {
    console.log(
      `${missingAudio.count} sound files are not there, seen from the new file, such as ${missingAudio.first}: say data.audioRoot, the folder that they are relative to`,
    )
  }
  return 0
}

function share(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() !== '' && value >= 0 && value < 1) return value
  throw new TypeError(`salmonn-convert: --${option} is a share from 0 to below 1, not "${text}".`)
}

function whole(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= 0) return value
  throw new TypeError(`salmonn-convert: --${option} must be a whole number, not "${text}".`)
}

function oneOf<T extends string>(option: string, text: string | undefined, words: readonly T[]): T | undefined {
  if (text === undefined || words.includes(text as T)) return text as T | undefined
  throw new TypeError(`salmonn-convert: --${option} is ${words.join(' or ')}, not "${text}".`)
}
