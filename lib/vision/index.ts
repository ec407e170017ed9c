export { type ImageInput, type RawImage, type ReadImageOptions, readImage } from './image.js'
export {
  type PreprocessDepthOptions,
  type PreprocessImageOptions,
  type PreprocessOptions,
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
  type ImageFilter,
  type ImageSize,
  type NormalizeImageOptions,
  normalizeImage,
  type ResizeImageOptions,
  type ResizeTensorOptions,
  resizeImage,
  resizeTensor,
} from './resize.js'
export { type TiledImage, type TileGrid, type TileImageOptions, tileGrid, tileImage } from './tile.js'
export { type OpenVideoOptions, openVideo, type ReadAudioTrackOptions, type ReadFramesOptions, Video } from './video.js'
export { videoAudio } from './video-audio.js'
