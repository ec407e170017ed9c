import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { randn, saveSafetensors, scope, type Tensor } from 'voxtorch'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import { findPython, peersFolder } from './peer.js'
import type { Report } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * A case has a line here and a function of its name in peers/files.mjs and peers/files.py. `prepare` writes its files into the
 * folder in VOXTORCH_BENCH_FILES.
 */
interface FileCase extends Case {
  prepare?: (folder: string) => Promise<void>
}

/** 306 MB as a model has it: large matrices in two dtypes, and many small vectors. */
async function prepareSafetensors(folder: string): Promise<void> {
  await scope(async () => {
    const tensors: Record<string, Tensor> = {}
    for (let i = 0; i < 60; i += 1) tensors[`layers.${i}.weight`] = randn([1024, 1024])
    for (let i = 0; i < 50; i += 1) tensors[`layers.${i}.half`] = randn([1024, 512]).to('bfloat16')
    for (let i = 0; i < 400; i += 1) tensors[`layers.${i}.bias`] = randn([1024])
    await saveSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' })
  })
}

/** 400 of the 1,284 samples of MOSI's training file, 140 MB. Python writes it: voxtorch reads pickles only. */
async function preparePickle(folder: string): Promise<void> {
  execFileSync(findPython(), [`${peersFolder}write_pickle.py`, join(folder, 'mosi.pkl')])
}

const cases: FileCase[] = [
  {
    name: 'safetensorsCopy',
    label: "safetensors, 306 MB, copied (Python: backend='pread')",
    target: 1,
    prepare: prepareSafetensors,
  },
  { name: 'safetensorsMap', label: 'safetensors, 306 MB, mapped by both', target: 1, prepare: prepareSafetensors },
  {
    name: 'safetensorsDefault',
    label: 'safetensors, 306 MB, defaults: copied here, mapped by Python',
    prepare: prepareSafetensors,
  },
  { name: 'pickle', label: 'pickle as MOSI has it, 140 MB', target: 1.5, prepare: preparePickle },
]

export async function run({ rounds = 15, milliseconds = 100, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const folder = scratchFolder()
  try {
    for (const prepare of new Set(chosen.map((one) => one.prepare))) await prepare?.(folder)
    process.env.VOXTORCH_BENCH_FILES = folder
    const pair = await startPair('files')
    try {
      const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
      const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
      return { question: 'files', rounds, rows, rates: ratesOf(rows), versions }
    } finally {
      closePair(pair)
    }
  } finally {
    removeScratch(folder)
  }
}
