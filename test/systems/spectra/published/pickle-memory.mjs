// Reads one pickle and prints what memory it took beyond its own arrays, in MB. Run with --expose-gc or without.
import { readFileSync } from 'node:fs'
import { memoryStats } from 'voxtorch'
import { readSpectraPickles } from 'voxtorch/spectra'

const [path, arrays = 'tensor'] = process.argv.slice(2)
const status = (field) =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024
memoryStats() // its first use loads libtorch
const before = status('VmRSS')
const { splits } = await readSpectraPickles(path, { task: 'mosi', splits: ['train'], arrays })
const bytes = splits.train.reduce((sum, { audio }) => sum + audio.shape[0] * 4, 0) / 2 ** 20
const own = arrays === 'tensor' ? bytes : 0
console.log(
  JSON.stringify({
    samples: splits.train.length,
    arrays: Math.round(bytes),
    peakAbove: Math.round(status('VmHWM') - before - own),
    liveTensors: memoryStats().liveTensors,
  }),
)
