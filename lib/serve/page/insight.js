// Beside an answer: how likely each label is, and what the model looked at.

import { element } from './clip.js'

/** Bars, the likeliest first. */
export function bars(scores) {
  const entries = Object.entries(scores).sort((a, b) => b[1] - a[1])
  const rows = entries.map(([label, share]) => {
    const percent = Math.round(100 * share)
    const bar = element('span', { className: 'bar-fill' })
    bar.style.width = `${100 * share}%`
    return element(
      'li',
      {},
      element('span', { className: 'bar-label', textContent: label, title: label }),
      element('span', { className: 'bar-track', ariaHidden: 'true' }, bar),
      element('span', { className: 'bar-share', textContent: `${percent} %` }),
    )
  })
  return element('ul', { className: 'bars', ariaLabel: 'How likely each answer is' }, ...rows)
}

const counted = (count, what) => `${count} ${what}${count === 1 ? '' : 's'}`

/** Tiles in their grid with the thumbnail beside, and frames in a row. */
export function views(all) {
  const said = all.map(({ kind, tiles, grid }) => {
    if (kind === 'video') return counted(tiles.length, 'frame')
    const inGrid = grid ? grid[0] * grid[1] : tiles.length
    return counted(inGrid, 'tile') + (tiles.length > inGrid ? ' and a thumbnail' : '')
  })
  const groups = all.map(({ kind, tiles, grid, frames }) => {
    const inGrid = grid ? grid[0] * grid[1] : tiles.length
    const picture = (url, i) => {
      const isWhole = kind === 'image' && i >= inGrid
      const number = frames ? `Frame ${frames[i] + 1}` : isWhole ? 'Thumbnail' : `Tile ${i + 1} of ${inGrid}`
      return element('img', { src: url, alt: number, title: number })
    }
    const pictures = tiles.map(picture)
    const grids = element('div', { className: 'grid' }, ...pictures.slice(0, inGrid))
    grids.style.gridTemplateColumns = `repeat(${grid ? grid[0] : tiles.length}, minmax(0, 1fr))`
    if (grid) grids.style.maxWidth = `${Math.min(300, 84 * grid[0])}px`
    const node = element('div', { className: `view ${kind}` }, grids)
    if (pictures.length > inGrid) node.append(element('div', { className: 'whole' }, pictures.at(-1)))
    return node
  })
  const summary = element('summary', { textContent: `What the model saw: ${said.join(', ')}` })
  return element('details', { className: 'views', open: true }, summary, ...groups)
}
