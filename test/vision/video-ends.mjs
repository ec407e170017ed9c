// Reads a video again and again, and stops in the middle: by an abort, by leaving a DataLoader's loop, or by ending the process.
// node video-ends.mjs FILE abort|loader|exit SEED
import { DataLoader, openVideo } from 'voxtorch'

const [file, how, seed] = process.argv.slice(2)
let state = Number(seed)
/** A number from 0 to 1. */
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Read all frames. */
async function read(signal) {
  const video = await openVideo(file, { signal })
  try {
    for await (const frame of video.stream(undefined, { signal })) frame.dispose()
  } finally {
    await video.close()
  }
}

if (how === 'abort') {
  // The first milliseconds load FFmpeg, the next ones open the file, those after decode.
  for (let i = 0; i < 30; i++) {
    const controller = new AbortController()
    const reading = read(controller.signal).catch((error) => {
      if (error.message !== 'enough') throw error
    })
    await sleep(150 * random())
    controller.abort(new Error('enough'))
    await reading
  }
} else if (how === 'loader') {
  for (let i = 0; i < 8; i++) {
    const loader = new DataLoader(new URL('./video-dataset.mjs', import.meta.url), {
      ...{ batchSize: 2, workers: 2, workerData: file, collate: (samples) => samples },
    })
    let left = 1 + Math.floor(3 * random())
    for await (const _ of loader) if (--left === 0) break
  }
} else {
  setTimeout(() => process.exit(7), 200 * random())
  for (;;) await read()
}
console.log('ended')
