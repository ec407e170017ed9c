// Details of an answer: the probability of each label, and the tiles and frames that the model encoded.

import { element } from './clip.js'

/** Return a bar chart of probabilities, the highest first. */
export function bars(scores) {
  const entries = Object.entries(scores).sort((a, b) => b[1] - a[1])
  const rows = entries.map(([label, probability]) => {
    const percent = Math.round(100 * probability)
    const bar = element('span', { className: 'bar-fill' })
    bar.style.width = `${100 * probability}%`
    return element(
      'li',
      {},
      element('span', { className: 'bar-label', textContent: label, title: label }),
      element('span', { className: 'bar-track', ariaHidden: 'true' }, bar),
      element('span', { className: 'bar-share', textContent: `${percent} %` }),
    )
  })
  return element('ul', { className: 'bars', ariaLabel: 'Probability of each answer' }, ...rows)
}

const counted = (count, what) => `${count} ${what}${count === 1 ? '' : 's'}`

/** Return the tiles of images in their grid, with the thumbnail next to it, and the frames of videos in a row. */
export function views(all) {
  const counts = all.map(({ kind, tiles, grid }) => {
    if (kind === 'video') return counted(tiles.length, 'frame')
    const inGrid = grid ? grid[0] * grid[1] : tiles.length
    return counted(inGrid, 'tile') + (tiles.length > inGrid ? ' and a thumbnail' : '')
  })
  const groups = all.map(({ kind, tiles, grid, frames }) => {
    const inGrid = grid ? grid[0] * grid[1] : tiles.length
    const image = (url, i) => {
      const isWhole = kind === 'image' && i >= inGrid
      const number = frames ? `Frame ${frames[i] + 1}` : isWhole ? 'Thumbnail' : `Tile ${i + 1} of ${inGrid}`
      return element('img', { src: url, alt: number, title: number })
    }
    const images = tiles.map(image)
    const grids = element('div', { className: 'grid' }, ...images.slice(0, inGrid))
    grids.style.gridTemplateColumns = `repeat(${grid ? grid[0] : tiles.length}, minmax(0, 1fr))`
    if (grid) grids.style.maxWidth = `${Math.min(300, 84 * grid[0])}px`
    const node = element('div', { className: `view ${kind}` }, grids)
    if (images.length > inGrid) node.append(element('div', { className: 'whole' }, images.at(-1)))
    return node
  })
  const summary = element('summary', { textContent: `Input of the vision encoder: ${counts.join(', ')}` })
  return element('details', { className: 'views', open: true }, summary, ...groups)
}
