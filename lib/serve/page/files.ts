import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageDirectory } from '../../native/load.js'
import { HTML, ICON } from './html.js'
import { STYLE } from './style.js'

export interface PageFile {
  type: string
  body: Buffer
}

let files: Map<string, PageFile> | undefined

/** Return the files of the page by path. Requests can only reach these; their paths are never used to read from disk. */
export function pageFiles(): Map<string, PageFile> {
  files ??= new Map([
    ['/', text('text/html', HTML)],
    ['/style.css', text('text/css', STYLE)],
    ['/icon.svg', text('image/svg+xml', ICON)],
    ['/app.js', text('text/javascript', script('app'))],
    ['/recorder-worklet.js', text('text/javascript', script('recorder-worklet'))],
  ])
  return files
}

const text = (type: string, body: string): PageFile => ({ type: `${type}; charset=utf-8`, body: Buffer.from(body) })

/** Return a browser bundle without its source map comment. */
function script(name: string): string {
  const source = readFileSync(join(packageDirectory, 'dist/serve/page', `${name}.js`), 'utf8')
  return source.replace(/\n\/\/# sourceMappingURL=.*/, '')
}
