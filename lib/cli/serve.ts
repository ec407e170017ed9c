import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { nearest } from '../base/words.js'
import { commandRule } from '../kit/command.js'
import { flagOf, type OptionRule, type OptionsOf, type OptionTable, readOptions } from '../kit/options.js'
import type { ChatModelLoader, Served, ServeOptions } from '../serve/index.js'
import { loopbackNames } from '../serve/options.js'
import { chatModels, ownOptions } from './chat-models.js'

/** Options of one model, whose help says so. */
const optionsOf = <T extends OptionTable>(model: string, table: T): T =>
  Object.fromEntries(
    Object.entries(table).map(([name, rule]): [string, OptionRule] => [
      name,
      { ...rule, help: `${model}: ${rule.help}` },
    ]),
  ) as T

const OPTIONS = {
  model: {
    kind: 'text',
    help: "the model's folder; of text also a GGUF file, or a name of `voxtorch weights`; of usdm by default MODEL_CACHE_DIR",
    value: 'dir',
  },
  device: { kind: 'text', help: 'such as cpu or cuda', preset: 'cpu' },
  dtype: { kind: 'text', help: 'of the weights, such as float32 or bfloat16', value: 'name' },
  host: { kind: 'text', help: 'another than 127.0.0.1, this machine only, needs an API key', value: 'address' },
  port: { kind: 'whole', help: '0 picks a free one', preset: 8080 },
  apiKey: {
    kind: 'text',
    help: 'what clients must send; better in the variable VOXTORCH_API_KEY, which other users cannot see',
    value: 'key',
  },
  allowHost: { kind: 'texts', help: "names under which the server may be addressed, such as a proxy's", value: 'name' },
  maxBody: { kind: 'number', help: 'of a request, in MB', value: 'MB', preset: 25 },
  maxAudio: { kind: 'number', help: 'of all clips of a conversation', value: 'seconds', preset: 600 },
  maxPixels: {
    kind: 'number',
    help: 'of all pictures of a conversation, and of the frames of its films that are looked at, in millions',
    value: 'millions',
    preset: 64,
  },
  maxTokens: { kind: 'whole', help: 'of an answer', preset: 2048 },
  concurrent: { kind: 'whole', help: 'answers at once; default 8, which are written in the same passes' },
  queue: { kind: 'whole', help: 'requests that wait', preset: 16 },
  answerTimeout: { kind: 'number', help: 'for a whole answer', value: 'seconds', preset: 300 },
  quiet: { kind: 'flag', help: 'no line for each request' },
  ...optionsOf('emoverse', ownOptions.emoverse),
  ...optionsOf('usdm', ownOptions.usdm),
} as const

/** `voxtorch serve`, for the models of a list. */
export const serveRule = (models: Record<string, ChatModelLoader> = chatModels) =>
  commandRule({
    name: 'serve',
    summary:
      'Serves a model of speech, pictures or text: a page to record or drop what it is asked about, and an HTTP API.',
    details: `  voxtorch serve salmonn --model runs/salmonn/model
  voxtorch serve text --model smollm2-135m-instruct
  voxtorch serve usdm --model runs/usdm
  voxtorch serve emoverse --model runs/emoverse/model
  voxtorch serve emoverse --model InternVL2-4B --adapters runs/stage-1/adapter runs/stage-2/adapter --quantize nf4

The API is OpenAI's chat completions (POST /v1/chat/completions, GET /v1/models, GET /health). MODEL is one of:
${Object.keys(models).join(', ')}. Stop it with ^C: running answers get 10 seconds to finish; a second ^C aborts them.`,
    files: 'MODEL --model DIR',
    options: OPTIONS,
    run: (options, files) => run(serveCommand(options, files, models)),
  })

export interface ServeCommand {
  load: ChatModelLoader
  directory: string
  loading: Parameters<ChatModelLoader>[1]
  options: ServeOptions
  quiet: boolean
}

/** Reads the command line behind `serve`. @throws ConfigError for what cannot be understood */
export function parseServe(
  argv: readonly string[],
  models: Record<string, ChatModelLoader> = chatModels,
  env: NodeJS.ProcessEnv = process.env,
): ServeCommand {
  const { options, files } = readOptions('serve', OPTIONS, argv)
  return serveCommand(options, files, models, env)
}

function serveCommand(
  given: OptionsOf<typeof OPTIONS>,
  [name, ...more]: readonly string[],
  models: Record<string, ChatModelLoader>,
  env: NodeJS.ProcessEnv = process.env,
): ServeCommand {
  const wrong = (message: string) => new ConfigError(`serve: ${message}`, {})
  if (name === undefined) throw wrong('which model? See `voxtorch serve --help`.')
  if (more.length > 0) throw wrong(`unexpected argument "${more[0]}".`)
  const load = Object.hasOwn(models, name) ? models[name] : undefined
  if (load === undefined) throw wrong(`there is no model "${name}"${hint(name, Object.keys(models))}.`)
  const {
    allowHost,
    answerTimeout,
    concurrent,
    device,
    dtype,
    host,
    maxAudio,
    maxBody,
    maxPixels,
    maxTokens,
    model,
    queue,
  } = given
  // As the original's demo has it.
  const directory = model ?? (name === 'usdm' ? env.MODEL_CACHE_DIR || undefined : undefined)
  if (directory === undefined) throw wrong('--model DIR is missing.')
  const own: Record<string, unknown> = {}
  for (const [owner, table] of Object.entries(ownOptions)) {
    for (const option of Object.keys(table) as (keyof OptionsOf<typeof OPTIONS>)[]) {
      if (given[option] === undefined) continue
      if (name !== owner) throw wrong(`${flagOf(option)} is an option of ${owner}, not of ${name}.`)
      own[option] = given[option]
    }
  }
  return {
    load,
    directory,
    loading: { ...defined({ device, dtype }), ...own },
    options: {
      ...defined({
        maxBodyBytes: maxBody === undefined ? undefined : Math.round(maxBody * 1e6),
        maxAudioSeconds: maxAudio,
        maxPixels: maxPixels === undefined ? undefined : Math.round(maxPixels * 1e6),
        maxNewTokens: maxTokens,
        maxConcurrent: concurrent,
        maxQueued: queue,
        answerTimeout,
        host,
        apiKey: given.apiKey ?? (env.VOXTORCH_API_KEY || undefined),
        allowedHosts: allowHost && [...allowHost, ...loopbackNames(host ?? '127.0.0.1')],
      }),
      port: given.port ?? 8080,
    },
    quiet: given.quiet ?? false,
  }
}

function hint(name: string, known: string[]): string {
  const near = nearest(name, known)
  if (near !== undefined) return `; did you mean "${near}"?`
  return known.length > 0 ? `, only ${known.join(', ')}` : ''
}

/** Loads, serves, and returns the exit code once a signal has ended it. */
async function run({ load, directory, loading, options, quiet }: ServeCommand): Promise<number> {
  const { serve } = await import('../serve/index.js')
  console.error(`loading ${directory} …`)
  const model = await load(directory, loading)
  const log = quiet ? undefined : (line: string) => console.error(`${new Date().toISOString()} ${line}`)
  const served = await serve(model, log ? { ...options, log } : options)
  console.log(`${model.name} is served at ${served.url}; ^C ends it`)
  await untilSignal(served)
  return 0
}

function untilSignal(served: Served): Promise<void> {
  return new Promise((resolve, reject) => {
    let interrupted = false
    const end = () => {
      if (!interrupted) console.error('finishing what runs; once more aborts it')
      // Not before: a second signal in the meantime must not kill the process in the middle of it.
      const off = () => {
        for (const signal of signals) process.off(signal, end)
      }
      served.close({ now: interrupted }).finally(off).then(resolve, reject)
      interrupted = true
    }
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    for (const signal of signals) process.on(signal, end)
  })
}
