import { misuse } from '../base/check.js'
import { ProgressBar, type ProgressStream } from '../data/progress.js'

const MB = 1e6

let preset: boolean | ProgressStream = false

/**
 * Set what downloads of models show where their call has no `progress` option: nothing (false, as at first), or a line and a
 * bar on stderr (true) or on a stream. The `voxtorch` command turns it on.
 *
 * @throws ConfigError for anything else
 */
export function setDownloadProgress(progress: boolean | ProgressStream): void {
  progressStream('setDownloadProgress', progress)
  preset = progress
}

/** The stream of a call's `progress` option. @throws ConfigError for a value that is no boolean and no stream */
export function progressStream(
  where: string,
  progress: boolean | ProgressStream | undefined = preset,
): ProgressStream | undefined {
  if (typeof progress !== 'boolean' && typeof progress?.write !== 'function') {
    throw misuse(where, 'progress', 'a boolean or a stream', progress)
  }
  return progress === true ? process.stderr : progress || undefined
}

/** Of the bytes of several files together. */
export function progressBar(label: string, files: readonly { size: number }[], stream: ProgressStream | undefined) {
  const bytes = files.reduce((sum, { size }) => sum + size, 0)
  const bar =
    stream === undefined || files.length === 0
      ? undefined
      : new ProgressBar({ total: Math.ceil(bytes / MB), label, unit: 'MB', stream })
  let seen = 0
  return {
    /** For one file; a download that begins again counts from where it had been. */
    counter() {
      let most = 0
      return (size: number): void => {
        if (bar === undefined || size <= most) return
        const before = seen
        seen += size - most
        most = size
        bar.tick((seen === bytes ? Math.ceil(seen / MB) : Math.floor(seen / MB)) - Math.floor(before / MB))
      }
    },
    close: (): void => bar?.close(),
  }
}
