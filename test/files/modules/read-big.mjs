// Reads a part of a large file and says how much memory that took: the peak, less what was in use before.
import { loadTorch, readPickle, tensor } from 'voxtorch'
import { LazyTensor } from 'voxtorch/files'

const [kind, path] = process.argv.slice(2)
tensor([1]).add(1).dispose()
global.gc()
const before = process.memoryUsage().rss

async function read() {
  if (kind === 'torch') return (await loadTorch(path, { names: ['small'] })).small
  if (kind === 'torch-mmap') {
    const { big, small } = await loadTorch(path, { mmap: true })
    return big.numel() === 6 * 2 ** 30 ? small : big
  }
  const { big, small, bytes } = await readPickle(path, { arrays: 'lazy' })
  if (!(big instanceof LazyTensor) || bytes.length !== 3) throw new Error('another file')
  return kind === 'pickle' ? small.read() : (await big.read()).narrow(0, 0, 4)
}

const value = await read()
// The peak of the process, in KiB.
const peak = process.resourceUsage().maxRSS * 1024
console.log(JSON.stringify({ above: peak - before, value: value.toArray() }))
