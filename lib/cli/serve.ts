import { defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { nearest } from '../base/words.js'
import { isPublishedWeights, nearWeights } from '../hub/weights.js'
import { commandRule } from '../kit/command.js'
import { flagOf, type OptionDefinition, type OptionsOf, type OptionTable, readOptions } from '../kit/options.js'
import type { ChatModelLoader, Served, ServeOptions } from '../serve/index.js'
import { isLoopback, loopbackNames, settingsOf } from '../serve/options.js'
import { requireNetworkDType } from '../tensor/dtype.js'
import { chatModels, ownOptions } from './chat-models.js'

/** Prefix the help of options that belong to one model with its name. */
const optionsOf = <T extends OptionTable>(model: string, table: T): T =>
  Object.fromEntries(
    Object.entries(table).map(([name, rule]): [string, OptionDefinition] => [
      name,
      { ...rule, help: `${model}: ${rule.help}` },
    ]),
  ) as T

const OPTIONS = {
  model: {
    type: 'string',
    help: 'folder of the model; text: also a GGUF file or a name of `voxtorch weights`; audio: any folder or repository of AudioLM; usdm: default is the variable MODEL_CACHE_DIR',
    placeholder: 'model',
  },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: { type: 'string', help: 'dtype of the weights: float32, bfloat16 or float16', placeholder: 'name' },
  host: {
    type: 'string',
    help: 'address to listen on; one that other machines can reach needs an API key',
    placeholder: 'address',
    default: '127.0.0.1',
  },
  port: { type: 'integer', help: 'port to listen on; 0 picks a free one', default: 8080 },
  apiKey: {
    type: 'string',
    help: 'API key that clients must send; better set VOXTORCH_API_KEY, because other users can see command lines',
    placeholder: 'key',
  },
  allowHost: {
    type: 'strings',
    help: 'allowed Host headers of requests, such as the name of a proxy',
    placeholder: 'name',
  },
  maxBody: { type: 'number', help: 'maximum size of a request', placeholder: 'MB', default: 25 },
  maxAudio: {
    type: 'number',
    help: 'maximum duration of all audio in a conversation',
    placeholder: 'seconds',
    default: 600,
  },
  maxPixels: {
    type: 'number',
    help: 'maximum pixels of all images and encoded video frames in a conversation, in millions',
    placeholder: 'millions',
    default: 64,
  },
  maxTokens: { type: 'integer', min: 1, help: 'maximum tokens of an answer', default: 2048 },
  concurrent: {
    type: 'integer',
    min: 1,
    help: "requests processed at once; default: the model's limit, which is 8 for text and audio",
  },
  queue: { type: 'integer', help: 'maximum number of waiting requests', default: 16 },
  answerTimeout: { type: 'number', help: 'time limit for an answer', placeholder: 'seconds', default: 300 },
  quiet: { type: 'boolean', help: 'do not log requests' },
  ...optionsOf('emoverse', ownOptions.emoverse),
  ...optionsOf('usdm', ownOptions.usdm),
} as const

/** Return the options of one kind of model, for its help; all without a kind. */
function optionsFor(kind: string | undefined): OptionTable {
  const others = Object.entries(ownOptions).filter(([owner]) => kind !== undefined && owner !== kind)
  const hidden = others.flatMap(([, table]) => Object.keys(table))
  return Object.fromEntries(Object.entries(OPTIONS).filter(([name]) => !hidden.includes(name)))
}

/** Return the rule of `voxtorch serve` for a list of models. */
export const serveRule = (models: Record<string, ChatModelLoader> = chatModels) =>
  commandRule({
    name: 'serve',
    summary: 'Serve a speech, vision or text model: a chat page, and an HTTP API.',
    details: `  voxtorch serve text --model smollm2-135m-instruct
  voxtorch serve audio --model Qwen/Qwen2-Audio-7B-Instruct
  voxtorch serve salmonn --model runs/salmonn/model
  voxtorch serve usdm --model runs/usdm
  voxtorch serve emoverse --model runs/emoverse/model
  voxtorch serve emoverse --model InternVL2-4B --adapters runs/stage-1/adapter runs/stage-2/adapter --quantize nf4

KIND is one of: ${Object.keys(models).join(', ')}. \`voxtorch serve KIND --help\` shows only the options of that kind.
The API is OpenAI's chat completions: POST /v1/chat/completions, GET /v1/models, GET /health. Stop the server with ^C: running
answers get 10 seconds to finish, and a second ^C aborts them.`,
    files: 'KIND --model MODEL',
    options: OPTIONS,
    helpOptions: (words) => optionsFor(words.find((word) => Object.hasOwn(models, word))),
    run: (options, files) => run(serveCommand(options, files, models)),
  })

export interface ServeCommand {
  load: ChatModelLoader
  directory: string
  loading: Parameters<ChatModelLoader>[1]
  options: ServeOptions
  quiet: boolean
}

/** Parse the command line after `serve`. @throws ConfigError for invalid arguments */
export function parseServe(
  argv: readonly string[],
  models: Record<string, ChatModelLoader> = chatModels,
  env: NodeJS.ProcessEnv = process.env,
): ServeCommand {
  const { options, files } = readOptions('serve', OPTIONS, argv)
  return serveCommand(options, files, models, env)
}

function serveCommand(
  values: OptionsOf<typeof OPTIONS>,
  [name, ...more]: readonly string[],
  models: Record<string, ChatModelLoader>,
  env: NodeJS.ProcessEnv = process.env,
): ServeCommand {
  const wrong = (message: string) => new ConfigError(`serve: ${message}`, {})
  const kinds = Object.keys(models)
  const expected = `expected a kind of model: ${kinds.join(', ')}`
  if (name === undefined) {
    throw wrong(`${expected}; got none.${asText(values.model, kinds) ?? ' See `voxtorch serve --help`.'}`)
  }
  if (more.length > 0) throw wrong(`expected one kind of model, got a second argument "${more[0]}".`)
  const load = Object.hasOwn(models, name) ? models[name] : undefined
  if (load === undefined) throw wrong(`${expected}; got "${name}".${asText(name, kinds) ?? hint(name, kinds)}`)
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
  } = values
  // The variable of the original's demo.
  const directory = model ?? (name === 'usdm' ? env.MODEL_CACHE_DIR || undefined : undefined)
  if (directory === undefined) {
    throw wrong(
      name === 'text'
        ? '--model: expected a folder, a GGUF file or a name of `voxtorch weights`, got none. For example: --model smollm2-135m-instruct.'
        : '--model: expected the folder of the model, got none. Add --model DIR.',
    )
  }
  // emoverse has names of its own, such as fp32.
  if (name !== 'emoverse') requireNetworkDType('--dtype', dtype)
  const apiKey = values.apiKey ?? (env.VOXTORCH_API_KEY || undefined)
  if (host !== undefined && !isLoopback(host) && apiKey === undefined) {
    throw wrong(
      `--host: expected an API key, because other machines can reach ${host}, got none. Set VOXTORCH_API_KEY or --api-key, or leave --host out.`,
    )
  }
  const modelOptions: Record<string, unknown> = {}
  for (const [owner, table] of Object.entries(ownOptions)) {
    for (const option of Object.keys(table) as (keyof OptionsOf<typeof OPTIONS>)[]) {
      if (values[option] === undefined) continue
      if (name !== owner) throw wrong(`${flagOf(option)}: an option of ${owner}, not of ${name}. Leave it out.`)
      modelOptions[option] = values[option]
    }
  }
  return {
    load,
    directory,
    loading: { ...defined({ device, dtype }), ...modelOptions },
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
        apiKey,
        allowedHosts: allowHost && [...allowHost, ...loopbackNames(host ?? '127.0.0.1')],
      }),
      port: values.port ?? 8080,
    },
    quiet: values.quiet ?? false,
  }
}

function hint(name: string, known: string[]): string {
  const near = nearest(name, known)
  if (near !== undefined) return ` Did you mean "${near}"?`
  return ''
}

/** Suggest the command for a language model; undefined if the name is not one of weights, a file or a folder. */
function asText(model: string | undefined, kinds: string[]): string | undefined {
  if (model === undefined || !kinds.includes('text')) return undefined
  const published = isPublishedWeights(model) ? model : nearWeights(model)
  if (published === undefined && !/[./\\]/.test(model)) return undefined
  return ` Did you mean \`voxtorch serve text --model ${published ?? model}\`?`
}

/** Load and serve a model until a signal. Return the exit code. */
async function run({ load, directory, loading, options, quiet }: ServeCommand): Promise<number> {
  const { serve } = await import('../serve/index.js')
  // Check them before the model is loaded.
  settingsOf(options)
  console.error(`loading ${directory} …`)
  const model = await load(directory, loading)
  const log = quiet ? undefined : (line: string) => console.error(`${new Date().toISOString()} ${line}`)
  const served = await serve(model, log ? { ...options, log } : options)
  console.log(`${model.name} is served at ${served.url}; ^C stops it`)
  await untilSignal(served)
  return 0
}

function untilSignal(served: Served): Promise<void> {
  return new Promise((resolve, reject) => {
    let interrupted = false
    const end = () => {
      if (!interrupted) console.error('finishing running answers; ^C again aborts them')
      // Removed only after closing, so that a second signal does not kill the process.
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
