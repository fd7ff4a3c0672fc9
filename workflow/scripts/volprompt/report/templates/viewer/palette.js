// Colours that stand for one thing each: those of palette.py, which the page has in its style sheet.
const palette = (() => {
  const names = ["agrees", "bars", "dark", "ground", "lacking", "letters", "marks", "outline", "rim", "surplus"];
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  // Red, green and blue, 0 to 255, of `#RRGGBB`; and a colour that lets some of what is below through.
  const channels = (colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  const faint = (colour, opacity) => `rgb(${channels(colour).join(" ")} / ${opacity})`;
  return { ...colours, channels, faint };
})();
