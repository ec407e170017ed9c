export { nearest } from '../native/nearest.js'
