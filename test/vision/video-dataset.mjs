// Frames of a video that each sample opens anew, for the worker threads of a DataLoader.
import { openVideo } from 'voxtorch'

// biome-ignore lint/style/noDefaultExport: what a dataset's module exports
export default (file) => ({
  length: 40,
  async get(index) {
    const video = await openVideo(file)
    const frame = await video.frames([index % video.frameCount])
    const pixels = Uint8Array.from(frame.dataSync())
    frame.dispose()
    await video.close()
    return { pixels }
  },
})
