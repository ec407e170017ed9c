import { execFileSync } from 'node:child_process'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import { findPython, peersFolder } from './peer.js'
import type { Report } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/** Files of 169 s at 16 kHz, mono, written by peers/write_audio.py. */
const formats: Case[] = ['WAV', 'FLAC', 'MP3', 'Vorbis', 'Opus'].map((format) => ({
  name: `read${format}`,
  label: `read 169 s of ${format} (peer: libsndfile)`,
  target: 1.5,
}))

const cases: Case[] = [
  { name: 'resample', label: 'resample 60 s, 44.1 to 16 kHz', target: 1 },
  { name: 'resampleUp', label: 'resample 60 s, 16 to 22.05 kHz', target: 1 },
  { name: 'fbank', label: 'Kaldi fbank, 128 bands, 60 s', target: 1 },
  { name: 'logMel', label: 'Whisper log-mel, 80 bands, 30 s', target: 1 },
  ...formats,
  { name: 'readMany', label: 'read 8 files of FLAC at once (peer: libsndfile, in threads)', target: 1.5 },
]

export async function run({ rounds = 21, milliseconds = 100, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const folder = scratchFolder()
  try {
    if (chosen.some(({ name }) => name.startsWith('read'))) {
      execFileSync(findPython(), [`${peersFolder}write_audio.py`, folder], { stdio: 'inherit' })
    }
    process.env.VOXTORCH_BENCH_FILES = folder
    const pair = await startPair('audio')
    try {
      const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
      const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
      return { question: 'audio', rounds, rows, rates: ratesOf(rows), versions }
    } finally {
      closePair(pair)
    }
  } finally {
    removeScratch(folder)
  }
}
