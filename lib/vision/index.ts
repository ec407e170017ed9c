export { type ImageInput, type RawImage, type ReadImageOptions, readImage } from './image.js'
export {
  type PreprocessDepthOptions,
  type PreprocessImageOptions,
  type PreprocessVideoOptions,
  preprocessDepth,
  preprocessImage,
  preprocessVideo,
  type SampleFramesOptions,
  sampleFrames,
} from './preprocess.js'
export {
  CLIP_STATISTICS,
  centerCrop,
  IMAGENET_STATISTICS,
  normalizeImage,
  type ResizeImageOptions,
  resizeImage,
  resizeTensor,
} from './resize.js'
export { tileGrid, tileImage } from './tile.js'
export { type OpenVideoOptions, openVideo, type ReadFramesOptions, Video } from './video.js'
export { videoAudio } from './video-audio.js'
