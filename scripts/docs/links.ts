import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'

/** Follows every link of a built site to a file and, where it names one, to a place in it. @throws Error that lists what is not there */
export function checkLinks(site: string): { pages: number; links: number } {
  const pages = readdirSync(site, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.html'))
  const texts = new Map(pages.map((page) => [page, readFileSync(join(site, page), 'utf8')]))
  const places = new Map<string, Set<string>>()
  const placesOf = (page: string) => {
    let found = places.get(page)
    if (!found)
      places.set(
        page,
        (found = new Set([...(texts.get(page) ?? '').matchAll(/ id="([^"]+)"/g)].map(([, id = '']) => id))),
      )
    return found
  }
  const dead: string[] = []
  let links = 0
  for (const [page, text] of texts) {
    for (const [, link = ''] of text.matchAll(/<(?:a|link|script|img)\b[^>]*? (?:href|src)="([^"]+)"/g)) {
      if (/^(https?:|mailto:|data:)/.test(link)) continue
      links++
      const [path = '', place = ''] = link.replaceAll('&amp;', '&').split('#')
      const target =
        path === ''
          ? page
          : fileOf(site, posix.normalize(path.startsWith('/') ? path.slice(1) : join(dirname(page), path)))
      if (target === undefined) dead.push(`${page}: ${link}`)
      else if (place !== '' && texts.has(target) && !placesOf(target).has(decodeURIComponent(place)))
        dead.push(`${page}: ${link}`)
    }
  }
  if (dead.length > 0) throw new Error(`${dead.length} links lead nowhere:\n${dead.slice(0, 50).join('\n')}`)
  return { pages: pages.length, links }
}

const fileOf = (site: string, path: string): string | undefined =>
  [path, `${path}.html`, posix.join(path, 'index.html')].find(
    (one) => /\.\w+$/.test(one) && existsSync(join(site, one)),
  )
