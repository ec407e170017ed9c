// npm run bench -- <question> [options]; usage is below
import { parseArgs } from 'node:util'
import { holdTo } from './isa.js'
import { endLoad, startLoad } from './loaded.js'
import type { Options } from './options.js'
import { BenchError } from './peer.js'
import { isMet, type Report, table, writeCsv } from './report.js'

const questions: Record<string, { asks: string; load: () => Promise<{ run: (options: Options) => Promise<Report> }> }> =
  {
    ops: { asks: 'What does one operator, and one small training step, cost?', load: () => import('./ops.js') },
    limits: {
      asks: 'How fast does this machine read memory, multiply and add at most, and what part of it is used?',
      load: () => import('./limits.js'),
    },
    operators: {
      asks: 'How fast are operators on small, middle and large inputs, with gradients and without?',
      load: () => import('./operators.js'),
    },
    audio: { asks: 'What do reading audio, resampling and spectral features cost?', load: () => import('./audio.js') },
    text: { asks: 'How fast is text cut into tokens?', load: () => import('./text.js') },
    encoders: { asks: 'How fast are the networks of speech and text?', load: () => import('./encoders.js') },
    decode: { asks: 'How long does a language model take for a token?', load: () => import('./decode.js') },
    batching: {
      asks: 'How many tokens a second do several clients of one language model get?',
      load: () => import('./batching.js'),
    },
    serving: {
      asks: 'How many tokens a second, and how evenly, do clients of a server get?',
      load: () => import('./serving.js'),
    },
    whisper: { asks: 'How long does transcribing half a minute take?', load: () => import('./whisper.js') },
    load: {
      asks: 'How long until a fresh process has its first tensor, or its network?',
      load: () => import('./load.js'),
    },
    footprint: { asks: 'What memory does loading a 7B language model take?', load: () => import('./footprint.js') },
    loop: { asks: 'Does the event loop keep turning during a 3-second queued job?', load: () => import('./loop.js') },
    files: { asks: 'How long does it take to read files?', load: () => import('./files.js') },
    datasets: {
      asks: 'How fast, and in what memory, is a Parquet file of 100,000 rows streamed?',
      load: () => import('./datasets.js'),
    },
    loss: {
      asks: "What do loss and gradients of a language model's head take, in time and memory?",
      load: () => import('./loss.js'),
    },
    train: {
      asks: 'What does a training step take, in time and memory: full, and with LoRA?',
      load: () => import('./train.js'),
    },
    languagebind: { asks: 'How fast are the encoders of LanguageBind?', load: () => import('./languagebind.js') },
    spectra: {
      asks: 'What do fine-tuning and inference of SPECTRA take, and what does computing no padding save?',
      load: () => import('./spectra.js'),
    },
    usdm: { asks: 'How fast are the networks that hear and speak for USDM?', load: () => import('./usdm.js') },
    emoverse: {
      asks: 'How fast are the network that sees for EmoVerse, its training and its tiles?',
      load: () => import('./emoverse.js'),
    },
    memory: { asks: 'Does memory stay constant through 10,000 training steps?', load: () => import('./memory.js') },
  }

const usage = `npm run bench -- <question> [--rounds n] [--milliseconds n per block] [--only part-of-a-case] [--against part-of-a-peer]
                        [--isa avx2|avx512|amx] [--loaded n [--nice n]] [--tokens n] [--check]

${Object.entries(questions)
  .map(([name, { asks }]) => `  ${name.padEnd(11)}${asks}`)
  .join('\n')}

--isa limits both sides to an instruction set, as far as possible. --loaded measures each round twice: quiet, and with n busy
processes (--nice: their niceness). --tokens: how many a block of decode writes against llama.cpp, else 128. --check ends with code 1 when a target is missed. Results are appended to
bench/results/<question>.csv.
Python with torch is taken from VOXTORCH_BENCH_PYTHON, else python3; llama.cpp from VOXTORCH_BENCH_LLAMA (peers/native.sh; serving also
takes a file from VOXTORCH_BENCH_GGUF), node-llama-cpp and onnxruntime-node from the node_modules that
VOXTORCH_BENCH_MODULES names.`

function positive(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isInteger(value) && value > 0) return value
  throw new BenchError(`--${name} takes a positive integer, not "${text}".`)
}

async function main() {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string' },
      milliseconds: { type: 'string' },
      only: { type: 'string' },
      against: { type: 'string' },
      isa: { type: 'string' },
      loaded: { type: 'string' },
      nice: { type: 'string' },
      tokens: { type: 'string' },
      check: { type: 'boolean', default: false },
    },
  })
  const question = questions[positionals[0] ?? '']
  if (!question) {
    console.log(usage)
    process.exitCode = 2
    return
  }
  const rounds = positive(values.rounds, 'rounds')
  const milliseconds = positive(values.milliseconds, 'milliseconds')
  const tokens = positive(values.tokens, 'tokens')
  const busy = positive(values.loaded, 'loaded')
  const nice = positive(values.nice, 'nice') ?? 0
  if (nice !== 0 && busy === undefined) throw new BenchError('--nice is of the processes that --loaded starts.')
  if (values.isa !== undefined) holdTo(values.isa)
  const { run } = await question.load()
  if (busy !== undefined) startLoad(busy, nice)
  try {
    const report = await run({ rounds, milliseconds, only: values.only, against: values.against, tokens })
    console.log(table(report))
    console.log(`written to ${writeCsv(report)}`)
    if (values.check && !report.rows.every(isMet)) process.exitCode = 1
  } finally {
    endLoad()
  }
}

try {
  await main()
} catch (error) {
  if (!(error instanceof BenchError)) throw error
  console.error(error.message)
  process.exit(1) // a peer may still be waiting for its next line
}
