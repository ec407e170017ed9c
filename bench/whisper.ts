import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { publishedWeights } from 'voxtorch'
import { type Case, closePair, duel, type Pair, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError, findPython, Peer, peerModules, peersFolder } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * Whisper-base with random weights, and where they are here with its published ones; the same on all sides, on 30 seconds; Python's with the attention that transformers
 * chooses itself. Both write as many tokens. A whole transcription is the spectrogram, the encoder, the prompt and 64 greedy
 * tokens. Nothing is timed before all sides gave the same encoder states and tokens.
 */
const cases: Case[] = [
  { name: 'encoder', label: 'Whisper-base encoder, 30 s, float32', target: 1 },
  { name: 'encoderHalf', label: 'Whisper-base encoder, 30 s, bfloat16' },
  { name: 'decode', label: 'Whisper-base, 64 tokens, 1 row, float32' },
  { name: 'beams', label: 'Whisper-base, 64 tokens, 5 beams, float32' },
  { name: 'transcription', label: 'Whisper-base, 30 s of audio to 64 tokens, float32' },
]

const onnxCases: Case[] = [{ name: 'encoder', label: 'Whisper-base encoder, 30 s, float32', target: 1 }]

/** The published weights of `voxtorch weights whisper-base` on both sides, from CTranslate2's own folder. */
const publishedCases: Case[] = [
  { name: 'encoder', label: 'Whisper base as published, encoder, 30 s, float32', target: 0.8 },
  { name: 'decode', label: 'Whisper base as published, 64 tokens, float32', target: 0.8 },
  {
    name: 'transcription',
    label: 'Whisper base as published, 30 s to 64 tokens, float32',
    target: 0.8,
  },
  { name: 'encoderInt8', label: 'Whisper base as published, encoder, 30 s, int8', target: 0.9 },
  { name: 'decodeInt8', label: 'Whisper base as published, 64 tokens, int8', target: 0.9 },
  {
    name: 'transcriptionInt8',
    label: 'Whisper base as published, 30 s to 64 tokens, int8',
    target: 0.9,
  },
]

const MOST_DIFFERENCE = 1e-3

export async function run({ rounds = 5, milliseconds = 1, only = '', against = '' }: Options): Promise<Report> {
  const of = (peer: string, all: Case[]) => (peer.includes(against) ? all.filter((one) => isAsked(only, one)) : [])
  const own = of('transformers', cases)
  const encoder = of('onnxruntime', onnxCases)
  const published = of('CTranslate2', publishedCases)
  const folder = scratchFolder()
  const pair = await startPair('whisper')
  try {
    const { tokens } = await pair.voxtorch.ask({ make: folder })
    const rows: Row[] = []
    const versions: Record<string, string> = { ...pair.voxtorch.versions, ...pair.torch.versions }
    const modules = encoder.length === 0 ? null : peerModules('onnxruntime-node')
    if (own.length > 0 || modules !== null) {
      const { tokens: theirs, difference } = await pair.torch.ask({ load: folder, onnx: modules !== null })
      agree('transformers', Number(difference))
      if (JSON.stringify(tokens) !== JSON.stringify(theirs)) {
        throw new BenchError(`The tokens of both sides differ: ${tokens} here, ${theirs} in transformers.`)
      }
    }
    if (own.length > 0) rows.push(...(await duel({ ...pair, against: 'transformers' }, own, rounds, milliseconds)))
    printRealTimeFactor(rows)
    if (modules !== null) {
      const found = await againstOnnxruntime(pair, encoder, folder, modules, rounds, milliseconds)
      rows.push(...found.rows)
      versions.onnxruntime = found.version
    }
    const found = await againstCTranslate2(join(folder, 'sound.f32'), published, rounds, milliseconds)
    rows.push(...found.rows)
    Object.assign(versions, found.versions)
    if (rows.length === 0) throw new BenchError('Nothing was measured: no case or no peer is called that.')
    if (found.rows.length === 0) rows.push(...(await duel(pair, rateCases, rounds, milliseconds)))
    return { question: 'whisper', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
    removeScratch(folder)
  }
}

function agree(side: string, difference: number) {
  console.log(`encoder states differ from those of ${side} by ${difference.toExponential(1)}`)
  if (difference <= MOST_DIFFERENCE) return
  throw new BenchError(`The encoder states differ from those of ${side} by more than ${MOST_DIFFERENCE}.`)
}

function printRealTimeFactor(rows: Row[]) {
  for (const { label, voxtorch, torch } of rows) {
    if (!label.includes('of audio') || !voxtorch || !torch) continue
    const factor = (microseconds: number) => (microseconds / 30e6).toFixed(4)
    console.log(`real-time factor: ${factor(voxtorch.median)}, transformers ${factor(torch.median)}`)
  }
}

interface First {
  states: number[]
  tokens: number[]
}

/** Return nothing, with a message, if the weights or Python's ctranslate2 and faster-whisper are missing. */
async function againstCTranslate2(sound: string, chosen: Case[], rounds: number, milliseconds: number) {
  if (chosen.length === 0) return { rows: [], versions: {} }
  const weights = publishedWeights().find(({ name }) => name === 'whisper-base')
  const lacking = !weights?.present
    ? 'npx voxtorch weights whisper-base'
    : spawnSync(findPython(), ['-c', 'import ctranslate2, faster_whisper']).status !== 0
      ? 'pip install ctranslate2==4.8.5 faster-whisper==1.2.1'
      : null
  if (lacking !== null) {
    console.log(`not compared with CTranslate2: ${lacking}`)
    return { rows: [], versions: {} }
  }
  const pair = await startPair('whisper-published')
  try {
    const load = { folder: weights?.folder, sound }
    const ours = (await pair.voxtorch.ask({ load })).first as Record<string, First>
    const threads = Number(pair.voxtorch.versions.voxtorch_threads)
    const theirs = await pair.torch.ask({ load, threads })
    const first = theirs.first as Record<string, First>
    agree('CTranslate2', differenceOf((ours[''] as First).states, (first[''] as First).states))
    const same = (ours[''] as First).tokens.findIndex((token, i) => token !== first['']?.tokens[i])
    console.log(`of 64 tokens in float32, ${same < 0 ? 'all' : `the first ${same}`} are those of CTranslate2`)
    const rows = await duel({ ...pair, against: 'CTranslate2' }, [...chosen, ...rateCases], rounds, milliseconds)
    return { rows, versions: theirs.versions as Record<string, string> }
  } finally {
    closePair(pair)
  }
}

function differenceOf(ours: number[], theirs: number[]): number {
  const largest = (values: number[]) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  return largest(ours.map((value, i) => value - (theirs[i] as number))) / largest(theirs)
}

/** The same encoder, written by torch.onnx, in a process of its own. */
async function againstOnnxruntime(
  { voxtorch }: Pair,
  chosen: Case[],
  folder: string,
  modules: string,
  rounds: number,
  milliseconds: number,
): Promise<{ rows: Row[]; version: string }> {
  const threads = voxtorch.versions.voxtorch_threads as string
  const script = `${peersFolder}whisper-onnxruntime.mjs`
  const onnx = await Peer.start('onnxruntime', process.execPath, [script, modules, folder, threads])
  try {
    agree('onnxruntime', Number(onnx.versions.difference))
    const rows = await duel({ voxtorch, torch: onnx, against: 'onnxruntime' }, chosen, rounds, milliseconds)
    return { rows, version: onnx.versions.onnxruntime as string }
  } finally {
    onnx.close()
  }
}
