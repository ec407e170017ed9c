import { parseArgs } from 'node:util'
import { nearest } from '../base/nearest.js'
import type { ChatModelLoader, Served, ServeOptions } from '../serve/index.js'
import { chatModels } from './chat-models.js'

const help = (models: readonly string[]) => `voxtorch serve MODEL --model DIR [options]

Serves a model that hears and answers: a page to record or drop audio and ask, and an HTTP API with OpenAI's chat
completions (POST /v1/chat/completions, GET /v1/models, GET /health). MODEL is one of: ${models.join(', ') || '(none yet)'}.

  --model DIR              the model's folder
  --device NAME            such as cpu (default) or cuda
  --dtype NAME             of the weights, such as float32 or bfloat16
  --host ADDRESS           default 127.0.0.1, for this machine only; another needs an API key
  --port N                 default 8080; 0 picks a free one
  --api-key KEY            what clients must send; better in the variable VOXTORCH_API_KEY, which other users cannot see
  --allow-host NAME        a host name under which the server may be addressed, such as a proxy's; may be repeated
  --max-body MB            of a request, default 25
  --max-audio SECONDS      of all clips of a conversation, default 600
  --max-tokens N           of an answer, default 2048
  --concurrent N           answers at once, default 2
  --queue N                requests that wait, default 16
  --answer-timeout SECONDS for a whole answer, default 300
  --quiet                  no line for each request
  --help

Stop it with ^C: running answers get 10 seconds to finish; a second ^C aborts them.`

export interface ServeCommand {
  load: ChatModelLoader
  directory: string
  loading: { device?: string; dtype?: string }
  options: ServeOptions
  quiet: boolean
}

const sizes = {
  'max-body': { key: 'maxBodyBytes', factor: 1e6, whole: false },
  'max-audio': { key: 'maxAudioSeconds', factor: 1, whole: false },
  'max-tokens': { key: 'maxNewTokens', factor: 1, whole: true },
  concurrent: { key: 'maxConcurrent', factor: 1, whole: true },
  queue: { key: 'maxQueued', factor: 1, whole: true },
  'answer-timeout': { key: 'answerTimeout', factor: 1, whole: false },
} as const

/** Reads the command line behind `serve`; null where help is asked for. Throws TypeError for what cannot be understood. */
export function parseServe(
  argv: string[],
  models: Record<string, ChatModelLoader> = chatModels,
  env: NodeJS.ProcessEnv = process.env,
): ServeCommand | null {
  const text = { type: 'string' } as const
  const { positionals, values } = parseArgs({
    args: argv,
    allowPositionals: true,
    options: {
      model: text,
      device: text,
      dtype: text,
      host: text,
      port: text,
      'api-key': text,
      'allow-host': { type: 'string', multiple: true },
      'max-body': text,
      'max-audio': text,
      'max-tokens': text,
      concurrent: text,
      queue: text,
      'answer-timeout': text,
      quiet: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return null
  const [name, ...more] = positionals
  if (name === undefined) throw new TypeError('serve: which model? See `voxtorch serve --help`.')
  if (more.length > 0) throw new TypeError(`serve: unexpected argument "${more[0]}".`)
  const load = Object.hasOwn(models, name) ? models[name] : undefined
  if (load === undefined) throw new TypeError(`serve: there is no model "${name}"${hint(name, Object.keys(models))}.`)
  if (values.model === undefined) throw new TypeError('serve: --model DIR is missing.')
  const limits: Record<string, number> = {}
  for (const [option, { key, factor, whole }] of Object.entries(sizes)) {
    const value = values[option as keyof typeof sizes]
    if (value !== undefined) limits[key] = Math.round(positive(option, value, whole) * factor * 1000) / 1000
  }
  const { device, dtype, host, quiet } = values
  const apiKey = values['api-key'] ?? (env.VOXTORCH_API_KEY || undefined)
  const allowedHosts = values['allow-host']
  return {
    load,
    directory: values.model,
    loading: { ...(device !== undefined && { device }), ...(dtype !== undefined && { dtype }) },
    options: {
      ...limits,
      port: values.port === undefined ? 8080 : positive('port', values.port, true),
      ...(host !== undefined && { host }),
      ...(apiKey !== undefined && { apiKey }),
      ...(allowedHosts !== undefined && { allowedHosts: [...allowedHosts, 'localhost', '127.0.0.1', '[::1]'] }),
    },
    quiet,
  }
}

function positive(option: string, text: string, whole: boolean): number {
  const value = Number(text)
  if (text.trim() !== '' && value >= 0 && Number.isFinite(value) && (!whole || Number.isSafeInteger(value)))
    return value
  throw new TypeError(`serve: --${option} must be a ${whole ? 'whole ' : ''}number, not "${text}".`)
}

function hint(name: string, known: string[]): string {
  const near = nearest(name, known)
  if (near !== undefined) return `; did you mean "${near}"?`
  return known.length > 0 ? `, only ${known.join(', ')}` : ''
}

/** Loads, serves, and returns the exit code once a signal has ended it. */
export async function serveCommand(
  argv: string[],
  models: Record<string, ChatModelLoader> = chatModels,
): Promise<number> {
  const command = parseServe(argv, models)
  if (command === null) {
    console.log(help(Object.keys(models)))
    return 0
  }
  const { load, directory, loading, options, quiet } = command
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
    let told = false
    const end = () => {
      if (!told) console.error('finishing what runs; once more aborts it')
      // Not before: a second signal in the meantime must not kill the process in the middle of it.
      const off = () => {
        for (const signal of signals) process.off(signal, end)
      }
      served.close({ now: told }).finally(off).then(resolve, reject)
      told = true
    }
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    for (const signal of signals) process.on(signal, end)
  })
}
