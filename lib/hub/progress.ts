import { ProgressBar, type ProgressStream } from '../data/progress.js'

const MB = 1e6

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
